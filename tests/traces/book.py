"""A book of trace shapes: how its processes are run, killed, labelled and written, and its command line (stdlib only).

`shapes.py` and `second.py` are books: they say what a process does, `mechanisms*.py` how memory moves in it. Files and labels are those
of `generate.py`. What is called RSS here is what cannot be reclaimed, so shared memory and tmpfs count in it; the process is killed at
the first step at which this and a kernel share of 1 % reach the limit. Page cache never kills.
"""
import argparse, csv, math, multiprocessing, os, random, zlib

from mechanisms import DAY

KERNEL_SHARE = .01
COLUMNS = "t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation"
LABELS = ["split", "trace", "family", "leak", "t_leak_start", "t_oom", "horizon_s", "cadence_s", "shape"]
QUIET_CACHE, QUIET_THREADS = 8.0, 12


class Case:
    """One process. `start(r)` gives the step function of a life, `step(t, dt, up)` its MiB (or MiB, page cache, threads).

    leak      None for a healthy process; else when the leak begins, or a function of the second at which a life was born
    kills     after so many kills the trace ends; before that it starts again
    restarts  when it is started anew without a kill
    resizes   (when, factor): the limit is raised in place
    read      what becomes of the readings: a list of functions (r, rows, shift) such as `missed` and `clock_jump`
    """

    def __init__(self, seconds, cadence, start, limit=None, leak=None, restarts=(), kills=1, resizes=(), read=()):
        self.seconds, self.cadence, self.start, self.limit = seconds, cadence, start, limit
        self.leak, self.restarts, self.kills, self.resizes, self.read = leak, list(restarts), kills, list(resizes), read

    def begin(self, born):
        if callable(self.leak):
            return self.leak(born)
        return born if self.kills > 1 else self.leak

    def limit_at(self, t, limit):
        for at, factor in self.resizes:
            limit *= factor if t >= at else 1
        return limit


def since(t, start):
    return max(0.0, t - start)


def warm(up, tau=30):
    return 1 - math.exp(-up / tau)


def missed(every, low, high):
    """Readings that are lost for some seconds now and then: the reader got no processor."""
    def read(r, rows, shift):
        kept, begins = [], rows[0][0] + r.expovariate(1 / every)
        ends = begins + r.uniform(low, high)
        for row in rows:
            if row[0] >= ends:
                begins = row[0] + r.expovariate(1 / every)
                ends = begins + r.uniform(low, high)
            if row[0] < begins:
                kept.append(row)
        return kept, shift
    return read


def clock_jump(at, seconds):
    """The clock is set forward once: a gap in which nothing happened."""
    def read(r, rows, shift):
        moved = [(row[0] + (seconds if row[0] >= at else 0),) + row[1:] for row in rows]
        return moved, lambda t: shift(t) + (seconds if t >= at else 0)
    return read


def simulate(case, seed, headroom):
    """Rows `(t, MiB, cache MiB, threads, incarnation)`, the limit in MiB, and the leak's episodes."""
    rows, episodes, r = [], [], random.Random(seed)
    t, life, born, due, kills = 0.0, 1, 0.0, list(case.restarts), 0
    step = case.start(r)
    while t <= case.seconds:
        if due and t >= due[0]:
            due.pop(0)
            life, born, step = life + 1, t, case.start(r)
        got = step(t, case.cadence, t - born)
        mib, cache, threads = got if isinstance(got, tuple) else (got, QUIET_CACHE, QUIET_THREADS)
        if case.limit and mib * (1 + KERNEL_SHARE) >= case.limit_at(t, case.limit):
            kills += 1
            episodes.append((case.begin(born), t))
            if case.leak is None or kills >= case.kills:
                break
            life, born, step = life + 1, t + case.cadence, case.start(r)
        else:
            rows.append((t, max(2.0, mib), cache, threads, life))
        t += case.cadence
    return rows, case.limit or max(row[1] for row in rows) * r.uniform(*headroom), episodes


def as_read(case, seed, rows, episodes):
    """The readings and the episodes as they come through the reader's own troubles."""
    r, shift = random.Random(seed), float
    for trouble in case.read:
        rows, shift = trouble(r, rows, shift)
    return rows, [(shift(begin), shift(end)) for begin, end in episodes]


def lines(case, rows, limit):
    mib, page = 1 << 20, 4096
    for t, rss, cache, threads, life in rows:
        now = case.limit_at(t, limit)
        used = min(.995 * now, rss + KERNEL_SHARE * now + max(0, min(cache, .985 * now - rss)))
        yield "%d,%d,%d,%d,%d,%d\n" % (t, int(rss * mib) // page * page, int(used * mib) // page * page, threads,
                                      int(now * mib) // page * page, life)


def workers():
    return multiprocessing.get_context("fork").Pool(min(4, os.cpu_count() or 1))


class Book:
    """Shapes by name: (family, split, function). `headroom` is what people leave above the peak that they saw, `models` says by
    name which real behaviour a shape follows."""

    def __init__(self, about, splits, headroom, shapes, models=None):
        self.about, self.splits, self.headroom, self.shapes, self.models = about, splits, headroom, shapes, models or {}

    def make(self, name, number):
        """One trace: its lines, and its rows of labels.csv."""
        family, split, fn = self.shapes[name]
        seed = zlib.crc32(name.encode()) + 7919 * number
        case, trace = fn(random.Random(seed)), "%s-%02d" % (name, number)
        rows, limit, episodes = simulate(case, seed + 1, self.headroom)
        if (case.leak is None) != (not episodes):
            raise SystemExit("%s: %s" % (trace, "a healthy process was killed" if episodes else "never reached its limit"))
        rows, episodes = as_read(case, seed + 2, rows, episodes)
        end = int(rows[-1][0])
        spans = [("yes", int(begin), int(kill)) for begin, kill in episodes] or [("no", "", "")]
        labels = [(split, trace, family, *span, end, case.cadence, name) for span in spans]
        return list(lines(case, rows, limit)), labels

    def write(self, out, name, number):
        text, labels = self.make(name, number)
        with open(os.path.join(out, labels[0][0], labels[0][1] + ".csv"), "w") as file:
            file.write(COLUMNS + "\n")
            file.writelines(text)
        return labels

    def generate(self, out, splits, seeds, only):
        for split in splits:
            os.makedirs(os.path.join(out, split), exist_ok=True)
        jobs = [(self, out, name, number) for name, (_, split, _) in self.shapes.items()
                if split in splits and (not only or name in only) for number in range(seeds)]
        with workers() as pool:
            labels = [label for made in pool.starmap(Book.write, jobs, chunksize=1) for label in made]
        for split in splits:
            self.index(out, split, [label for label in labels if label[0] == split])

    @staticmethod
    def index(out, split, labels):
        with open(os.path.join(out, split, "labels.csv"), "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(LABELS)
            table.writerows(labels)
        print("%s: %d leak episodes, %.1f healthy pod-days" % (
            split, sum(label[3] == "yes" for label in labels), sum(label[6] for label in labels if label[3] == "no") / DAY))

    def list(self):
        for name, (family, split, fn) in self.shapes.items():
            print("%-5s  %-22s  %-28s  %s" % (split, family, name, fn.__doc__.split("\n")[0]))
            if name in self.models:
                print("%62s%s" % ("", self.models[name]))

    def main(self, check=None):
        ap = argparse.ArgumentParser(description=self.about.split("\n")[0])
        ap.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "out"))
        ap.add_argument("--split", default="all", help=" and ".join(self.splits) + ", or all")
        ap.add_argument("--seeds", type=int, default=3)
        ap.add_argument("--only", default="", help="names of shapes, with commas")
        ap.add_argument("--list", action="store_true")
        if check:
            ap.add_argument("--check", action="store_true", help="is the book as it says it is?")
        a = ap.parse_args()
        if a.list:
            self.list()
        elif check and a.check:
            check()
        else:
            splits = self.splits if a.split == "all" else a.split.split(",")
            self.generate(a.out, splits, a.seeds, set(filter(None, a.only.split(","))))
