#!/usr/bin/env python3
"""A second book of traces, made apart from the detector and from its first traces, to judge it on (stdlib only, deterministic).

Usage:  second.py [--out DIR] [--split tune2|held2|all] [--seeds N] [--only NAME,...] [--list] [--check]

Files and labels are those of `generate.py`. `second_bursts.py`, `second_leaks.py` and `second_hours.py` hold the leaks, `second_health.py`
and `second_work.py` the healthy; each shape says which behaviour it models. What the book promises, `--check` looks at:
  * Nobody chose what is held back: among the leaks, and among the healthy, the names go by their SHA-256 in turn to `tune2` and `held2`.
    (A book with one more shape is dealt anew: do not add to it once its `held2` is to count as unseen.)
  * A healthy process is never killed. Its limit is the peak that was seen and 10 to 40 % of room, by draw, unless the
    software brings a size of its own.
  * A leak has the second at which it begins, ends with a kill, and grows in between.
"""
import hashlib

import second_bursts, second_health, second_hours, second_leaks, second_work  # noqa: F401 (they fill the register)
from book import COLUMNS, Book, workers
from second_pages import PAGES

SPLITS = ["tune2", "held2"]


def in_turn(leaks):
    names = [name for name, page in PAGES.items() if page[2] == leaks]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: SPLITS[i % 2] for i, name in enumerate(names)}


def book():
    split = {**in_turn(True), **in_turn(False)}
    shapes = {name: (family, split[name], fn) for name, (family, _, _, fn) in PAGES.items()}
    return Book(__doc__, SPLITS, (1 / .9, 1 / .6), shapes, {name: page[1] for name, page in PAGES.items()})


# ---------------------------------------------------------------------------------------------------------------- the check
def check_trace(name, text, labels):
    """One trace against its labels: columns, order, limits, kills."""
    rows = [tuple(map(int, line.split(","))) for line in text]
    assert all(len(row) == len(COLUMNS.split(",")) for row in rows), name
    assert all(a[0] < b[0] and a[5] <= b[5] for a, b in zip(rows, rows[1:])), name + ": time or lives run backwards"
    assert all(0 < rss < 1.0001 * used and used <= limit for _, rss, used, _, limit, _ in rows), name + ": sizes"
    assert all(1.01 * rss < limit + 8192 for _, rss, _, _, limit, _ in rows), name + ": lived beyond its limit"
    if labels[0][3] == "no":
        share = max(rss / limit for _, rss, _, _, limit, _ in rows)
        assert share < .97, "%s: healthy at %.0f %%" % (name, 100 * share)
        return
    last = -1
    for _, _, _, _, begin, kill, *_ in labels:
        assert last <= begin < kill - 5, "%s: an episode from %s to %s" % (name, begin, kill)
        check_growth(name, [row for row in rows if max(last, begin - 120) <= row[0] <= kill])
        last = kill


def check_growth(name, rows):
    shares = [rss / limit for _, rss, _, _, limit, _ in rows]
    low = min(shares[:max(1, len(shares) // 3)])
    assert shares[-1] - low > .15, "%s: ends at %.2f, from %.2f" % (name, shares[-1], low)


def check_shape(name):
    """The first trace of a shape; whether it was short enough to be made twice."""
    second, leaks = book(), PAGES[name][2]
    text, labels = second.make(name, 0)
    assert (labels[0][3] == "yes") == leaks, name + ": in the wrong half"
    check_trace(name, text, labels)
    short = len(text) < 8000
    assert not short or (text, labels) == second.make(name, 0), name + ": not the same twice"
    return short


def check():
    for leaks in (True, False):
        halves = [list(in_turn(leaks).values()).count(split) for split in SPLITS]
        assert abs(halves[0] - halves[1]) <= 1 and sum(halves) >= 24, halves
    assert all(len(models) > 20 for _, models, _, _ in PAGES.values()), "each says what it models"
    with workers() as pool:
        twice = sum(pool.map(check_shape, PAGES, chunksize=1))
    print("second book: %d shapes good, %d of them made twice" % (len(PAGES), twice))


if __name__ == "__main__":
    book().main(check)
