#!/usr/bin/env python3
"""Traces from mechanisms, to judge the detector on shapes that it was not made on (stdlib only, deterministic).

Usage:  shapes.py [--out DIR] [--split tune|held|all] [--seeds N] [--only NAME,...] [--list]

Files and labels are those of `generate.py`, so `oomwatch replay` and `score.py` take them. `generate.py` draws curves; here
collectors, allocators, caches and queues run under a load (`mechanisms.py`), and the curve is what they do. The shapes are in
`shapes_leaks.py` and `shapes_health.py`; `second.py` is another book, made later and apart.

Two rules keep the judgement honest, and both were fixed before any score was seen:
  * Within each family, shapes go in turn, in the order of the files, to `tune` (which rules may be tried on) and to `held`
    (which is scored at the end and not looked into before).
  * A healthy process gets its limit as people set it: the peak that was seen, plus a headroom of 15 to 50 %, by draw. A shape
    that brings its own limit has a reason (a heap sized to its container).
"""
import shapes_leaks, shapes_health  # noqa: F401,E401 (they fill the register, in this order)
from book import Book
from shapes_pages import SHAPES

if __name__ == "__main__":
    Book(__doc__, ["tune", "held"], (1.15, 1.5), SHAPES).main()
