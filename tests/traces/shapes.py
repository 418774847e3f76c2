#!/usr/bin/env python3
"""Traces from mechanisms, to judge the detector on shapes that it was not made on (stdlib only, deterministic).

Usage:  shapes.py [--out DIR] [--split tune|held|all] [--seeds N] [--only NAME,...] [--list]

Files and labels are those of `generate.py`, so `oomwatch replay` and `score.py` take them. `generate.py` draws curves; here
collectors, allocators, caches and queues run under a load (`mechanisms.py`), and the curve is what they do.

Two rules keep the judgement honest, and both were fixed before any score was seen:
  * Within each family, shapes go in turn, in the order of this file, to `tune` (which rules may be tried on) and to `held`
    (which is scored at the end and not looked into before).
  * A healthy process gets its limit as people set it: the peak that was seen, plus a headroom of 15 to 50 %, by draw. A shape
    that brings its own limit has a reason (a heap sized to its container).
"""
import argparse, csv, math, os, random, zlib

from mechanisms import (DAY, H, Arenas, Backlog, Cache, Counted, Drift, Generations, GoHeap, Job, Load, Outages, Pool, pareto,
                        poisson)

KERNEL_SHARE = .01
SHAPES = {}


class Case:
    """One process: `start(r)` gives the step function of a life, `step(t, dt, up)` its MiB (or MiB, page cache, threads)."""

    def __init__(self, seconds, cadence, start, limit=None, leak=None, restarts=(), kills=1):
        self.seconds, self.cadence, self.start, self.limit = seconds, cadence, start, limit
        self.leak, self.restarts, self.kills = leak, list(restarts), kills


def shape(family):
    def keep(fn):
        number = sum(f == family for f, _, _ in SHAPES.values())
        SHAPES[fn.__name__] = (family, "tune" if number % 2 == 0 else "held", fn)
        return fn
    return keep


def since(t, start):
    return max(0.0, t - start)


def warm(up, tau=30):
    return 1 - math.exp(-up / tau)


# ------------------------------------------------------------------------------------------- leaks that go with the work
@shape("leak by work")
def request_leak_go(r):
    """Every request leaves a few hundred bytes on a Go heap; even load."""
    limit, rps, at = r.choice([256, 512, 1024]), r.uniform(50, 400), r.uniform(.3, 2) * H
    leak = limit / r.uniform(3, 14) / H / rps

    def start(r):
        load, heap, lost = Load(r, rps, quiet=.9), GoHeap(), [0.0]

        def step(t, dt, up):
            n = load.requests(t, dt)
            lost[0] += leak * n if t >= at else 0
            return 25 + heap.step(.12 * limit * warm(up) + lost[0], n * .05, dt)
        return step
    return Case(4 * DAY, 5, start, limit, at)


@shape("leak by work")
def request_leak_week(r):
    """The same on a load with nights and a weekend: it rests, and goes on."""
    limit, rps, at = r.choice([512, 1024, 2048]), r.uniform(20, 80), r.uniform(2, 20) * H
    leak = limit / r.uniform(40, 120) / H / rps

    def start(r):
        load, heap, lost = Load(r, rps, quiet=.15, weekend=.4), GoHeap(), [0.0]

        def step(t, dt, up):
            n = load.requests(t, dt)
            lost[0] += leak * n if t >= at else 0
            return 40 + heap.step(.15 * limit * warm(up) + lost[0], n * .05, dt)
        return step
    return Case(30 * DAY, 30, start, limit, at)


@shape("leak by work")
def job_leak_heavy_tail(r):
    """Jobs of very different size, each leaves a share of its input behind."""
    limit, gap, at = r.choice([512, 1024]), r.uniform(5, 30), r.uniform(.2, 1) * H
    unit = limit / r.uniform(2, 10) / H * gap / 3.2

    def start(r):
        heap, lost = Counted(r), [0.0]

        def step(t, dt, up):
            for _ in range(poisson(r, dt / gap) if t >= at else 0):
                lost[0] += pareto(r, unit, 60 * unit)
            return 20 + heap.step(.2 * limit * warm(up), dt) + lost[0]
        return step
    return Case(3 * DAY, 5, start, limit, at)


@shape("leak by work")
def error_leak(r):
    """Only failed requests leak, and failures come in spells."""
    limit, at, rps = r.choice([256, 512]), r.uniform(.5, 2) * H, r.uniform(20, 60)
    leak = limit / r.uniform(.8, 2) / H / rps

    def start(r):
        load, heap, lost, bad = Load(r, rps, quiet=.7), GoHeap(), [0.0], Outages(r, 1.5 * H, 120, 900, at)

        def step(t, dt, up):
            n = load.requests(t, dt)
            lost[0] += leak * n * (.9 if bad.now(t) else .004) if t >= at else 0
            return 20 + heap.step(.12 * limit * warm(up) + lost[0], n * .04, dt)
        return step
    return Case(8 * DAY, 5, start, limit, at)


@shape("leak by work")
def tenant_leak(r):
    """A registry keeps every tenant for ever; tenants come in working hours."""
    limit, at, rate = r.choice([512, 1024]), r.uniform(1, 8) * H, r.uniform(20, 60)
    size = limit / r.uniform(30, 80) / rate

    def start(r):
        load, heap, lost = Load(r, rate / H, quiet=.05), GoHeap(), [0.0]

        def step(t, dt, up):
            n = load.requests(t, dt)
            lost[0] += sum(size * r.uniform(.3, 1.7) for _ in range(n)) if t >= at else 0
            return 30 + heap.step(.15 * limit * warm(up) + lost[0], 4 * dt, dt)
        return step
    return Case(20 * DAY, 30, start, limit, at)


@shape("leak by work")
def reconnect_leak(r):
    """Each lost connection is opened anew and the old one's buffers stay; a broker drops all of them now and then."""
    limit, at, conns = r.choice([256, 512]), r.uniform(.3, 1) * H, r.randint(20, 60)
    size, every = r.uniform(.1, .3), r.uniform(240, 900)

    def start(r):
        heap, lost, due = GoHeap(), [0.0], [at + r.expovariate(1 / every)]

        def step(t, dt, up):
            lost[0] += size * poisson(r, conns * dt / (4 * H)) if t >= at else 0
            if t >= due[0]:
                lost[0] += size * conns * r.uniform(.3, 1)
                due[0] = t + r.expovariate(1 / every)
            return 25 + heap.step(conns * size + .1 * limit * warm(up) + lost[0], 2 * dt, dt)
        return step
    return Case(3 * DAY, 5, start, limit, at)


@shape("leak by work")
def cardinality_leak(r):
    """Label values of a metrics registry: new ones grow rarer as the popular ones have all been seen, and never end."""
    limit, at = r.choice([512, 1024]), 0.0

    def start(r):
        rps = 40
        load, cache = Load(r, rps, quiet=.7), Cache(30_000_000, limit / 2_200_000, zipf=.75)

        def step(t, dt, up):
            return 60 + cache.step(load.requests(t, dt), dt) + .08 * limit * warm(up)
        return step
    return Case(20 * DAY, 30, start, limit, at)


@shape("leak by work")
def batch_run_leak(r):
    """A job by the clock leaves some of its data behind at each run."""
    limit, every, at = r.choice([512, 1024]), r.choice([900, 1800, 3600]), r.uniform(.5, 1.5) * H
    left, need = limit * r.uniform(.02, .05), limit * r.uniform(.08, .15)

    def start(r):
        job, heap = Job(every, r.random() * every, 60, 120), GoHeap()
        first = job.number(at)

        def step(t, dt, up):
            lost = left * max(0, job.number(t) - first)
            return 25 + heap.step(.15 * limit * warm(up) + lost + need * job.share(t), 3 * dt, dt)
        return step
    return Case(4 * DAY, 5, start, limit, at)


# ------------------------------------------------------------------------------------- leaks behind a runtime's own motion
@shape("leak behind a runtime")
def old_generation_leak(r):
    """A JVM whose live set grows; touched regions stay resident, and its maximum heap leaves too little for the rest."""
    limit, at = r.choice([1024, 2048]), r.uniform(.5, 3) * H
    rate = limit / r.uniform(6, 20) / H

    def start(r):
        heap, load = Generations(r, .62 * limit), Load(r, 100, quiet=.5)

        def step(t, dt, up):
            live = .12 * limit * warm(up, 60) + rate * since(t, at)
            return .1 * limit + heap.step(live, load.rate(t, dt) * .02 * dt, dt)
        return step
    return Case(4 * DAY, 5, start, limit, at)


@shape("leak behind a runtime")
def old_generation_leak_uncommit(r):
    """A collector that gives memory back: a wide sawtooth with a rising floor."""
    limit, at = r.choice([512, 1024]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(4, 15) / H

    def start(r):
        heap, load = Generations(r, .8 * limit, threshold=.5, promote=.1, uncommit=True), Load(r, 100, quiet=.6)

        def step(t, dt, up):
            live = .1 * limit * warm(up, 60) + rate * since(t, at)
            return .08 * limit + heap.step(live, load.rate(t, dt) * .03 * dt, dt)
        return step
    return Case(4 * DAY, 5, start, limit, at)


@shape("leak behind a runtime")
def soft_limit_leak(r):
    """A Go heap under a soft limit: flat at the limit while the collector works, then gone."""
    limit, at = r.choice([256, 512]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(4, 12) / H

    def start(r):
        heap = GoHeap(100, r.uniform(.8, .88) * limit)

        def step(t, dt, up):
            return 12 + heap.step(.18 * limit * warm(up) + rate * since(t, at), 1.5 * dt, dt)
        return step
    return Case(3 * DAY, 5, start, limit, at)


@shape("leak behind a runtime")
def native_leak(r):
    """Memory of a C library leaks beside a quiet Go heap."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(.3, 3) * H
    rate = limit / r.uniform(2, 30) / H

    def start(r):
        heap, drift = GoHeap(), Drift(r, .004 * limit, 60)

        def step(t, dt, up):
            return 20 + heap.step(.15 * limit * warm(up), 2 * dt, dt) + rate * since(t, at) + drift.step(dt)
        return step
    return Case(3 * DAY, 5, start, limit, at)


@shape("leak behind a runtime")
def fragmentation_leak(r):
    """Long-lived crumbs pin pages: the freed rest of each cannot be used again, and the heap climbs."""
    limit, at = r.choice([512, 1024]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(15, 50) / H

    def start(r):
        heap, load, pinned = Counted(r, spread=.5, trim=.2), Load(r, 1, quiet=.4), [0.0]

        def step(t, dt, up):
            pinned[0] += rate * load.rate(t, dt) * dt if t >= at else 0
            return 30 + heap.step(.15 * limit * warm(up), dt) + pinned[0]
        return step
    return Case(8 * DAY, 10, start, limit, at)


@shape("leak behind a runtime")
def two_leaks(r):
    """A slow one from the start and, hours later, a faster one."""
    limit, at = r.choice([512, 1024]), r.uniform(6, 14) * H
    slow, fast = limit / r.uniform(90, 160) / H, limit / r.uniform(3, 10) / H

    def start(r):
        heap, load = GoHeap(), Load(r, 50, quiet=.4)

        def step(t, dt, up):
            live = .12 * limit * warm(up) + slow * t + fast * since(t, at)
            return 25 + heap.step(live, load.rate(t, dt) * .05 * dt, dt)
        return step
    return Case(5 * DAY, 10, start, limit, 0.0)


@shape("leak behind a runtime")
def leak_under_a_day(r):
    """A leak of some percent a day below a load curve that is ten times as high."""
    limit, at = r.choice([1024, 2048]), r.uniform(4, 30) * H
    rate = limit / r.uniform(60, 140) / H

    def start(r):
        load, pool = Load(r, 1, quiet=.2, weekend=.5), Pool(.25 * limit, idle=600)

        def step(t, dt, up):
            return .15 * limit * warm(up) + pool.step(load.rate(t, dt), dt) + rate * since(t, at)
        return step
    return Case(20 * DAY, 30, start, limit, at)


@shape("leak behind a runtime")
def leak_while_a_cache_fills(r):
    """A cache fills up to its capacity, a leak goes on."""
    limit, at = r.choice([512, 1024]), 0.0
    rate = limit / r.uniform(15, 40) / H

    def start(r):
        cache = Cache(400_000, limit * .4 / 400_000, zipf=.8, capacity=.3 * limit)
        load = Load(r, r.uniform(5, 30), quiet=.6)

        def step(t, dt, up):
            return 30 + .1 * limit * warm(up) + cache.step(load.requests(t, dt), dt) + rate * t
        return step
    return Case(3 * DAY, 10, start, limit, at)


# --------------------------------------------------------------------------------------------------- leaks with their hour
@shape("leak with its hour")
def leak_since_a_deploy(r):
    """Two good releases, then one that leaks from its first second."""
    limit, at = r.choice([256, 512]), r.uniform(5, 9) * H
    rate = limit / r.uniform(1.5, 8) / H

    def start(r):
        heap = GoHeap()

        def step(t, dt, up):
            lost = rate * up if t >= at else 0
            return 20 + heap.step(.15 * limit * warm(up) + lost, 2 * dt, dt)
        return step
    return Case(3 * DAY, 5, start, limit, at, restarts=[at / 2, at])


@shape("leak with its hour")
def leak_after_days(r):
    """A flag is set after days of health."""
    limit, at = r.choice([512, 1024]), r.uniform(2.5, 4) * DAY
    rate = limit / r.uniform(10, 40) / H

    def start(r):
        heap, load = GoHeap(), Load(r, 60, quiet=.3)

        def step(t, dt, up):
            live = (.12 + .06 * load.rate(t, dt) / 60) * limit * warm(up)
            return 30 + heap.step(live + rate * since(t, at), 3 * dt, dt)
        return step
    return Case(10 * DAY, 10, start, limit, at)


@shape("leak with its hour")
def retry_storm(r):
    """Retries beget retries: the backlog feeds its own growth."""
    limit, at, tau = r.choice([256, 512]), r.uniform(.3, 1.5) * H, r.uniform(120, 900)

    def start(r):
        drift = Drift(r, .004 * limit, 30)

        def step(t, dt, up):
            late = min(1e4, .004 * limit * (math.exp(min(20, since(t, at) / tau)) - 1))
            return .25 * limit * warm(up) + late + drift.step(dt)
        return step
    return Case(1 * DAY, 1, start, limit, at)


@shape("leak with its hour")
def unread_buffer(r):
    """The log's reader is gone; lines wait in memory, as many as the load writes."""
    limit, at = r.choice([256, 512]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(300, 2400)

    def start(r):
        queue, load = Backlog(1.0), Load(r, 1, quiet=.8, wander=.15)

        def step(t, dt, up):
            lines = rate * load.rate(t, dt) * dt
            return .25 * limit * warm(up) + queue.step(lines, lines if t < at else 0)
        return step
    return Case(1 * DAY, 1, start, limit, at)


@shape("leak with its hour")
def slow_consumer(r):
    """Producer and consumer are even by night; by day the queue grows, and one day it is the end."""
    limit, at = r.choice([512, 1024]), 0.0

    def start(r):
        load, queue, heap = Load(r, 100, quiet=.3, phase=0.0), Backlog(limit / 400_000), GoHeap()
        served = r.uniform(58, 66)

        def step(t, dt, up):
            waiting = queue.step(load.requests(t, dt), served * dt)
            return 30 + heap.step(.1 * limit * warm(up) + .8 * waiting, 2 * dt, dt)
        return step
    return Case(12 * DAY, 10, start, limit, at)


@shape("leak with its hour")
def stuck_threads(r):
    """Every call that times out leaves a thread with its stack and buffers."""
    limit, at, gap = r.choice([256, 512]), r.uniform(.3, 1) * H, r.uniform(2, 12)
    size = r.uniform(.08, .3)

    def start(r):
        stuck = [0]

        def step(t, dt, up):
            stuck[0] += poisson(r, dt / gap) if t >= at else 0
            return .25 * limit * warm(up) + stuck[0] * size, 10, 20 + stuck[0]
        return step
    return Case(3 * DAY, 5, start, limit, at)


@shape("leak with its hour")
def crash_loop(r):
    """Leaks from its first second and starts again after each kill."""
    limit = r.choice([256, 512])
    rate = limit / r.uniform(240, 1500)

    def start(r):
        drift = Drift(r, .003 * limit, 30)
        return lambda t, dt, up: .08 * limit * warm(up, 3) + rate * up + drift.step(dt) + 8
    return Case(2 * H, 1, start, limit, 0.0, kills=4)


@shape("leak with its hour")
def dead_children(r):
    """A supervisor starts a worker for each that hangs; the hung ones keep their memory."""
    limit, at, gap = r.choice([512, 1024]), r.uniform(.3, 1) * H, r.uniform(120, 600)
    size = limit * r.uniform(.01, .03)

    def start(r):
        hung, heap = [0], Counted(r, trim=.5)

        def step(t, dt, up):
            hung[0] += poisson(r, dt / gap) if t >= at else 0
            return heap.step(.25 * limit * warm(up), dt) + hung[0] * size, 20, 12 + 4 * hung[0]
        return step
    return Case(2 * DAY, 5, start, limit, at)


# ------------------------------------------------------------------------------------------------------------------ bursts
@shape("burst")
def runaway_query(r):
    """One query materialises its result: tens of seconds from quiet to the kill."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(120, 2400)
    rate = limit / r.uniform(15, 45)

    def start(r):
        drift, heap = Drift(r, .004 * limit, 20), GoHeap()

        def step(t, dt, up):
            return 10 + heap.step(.12 * limit * warm(up, 10), dt, dt) + rate * since(t, at) + drift.step(dt)
        return step
    return Case(1 * H, 1, start, limit, at)


@shape("burst")
def upload_held_whole(r):
    """A body is read into a slice that doubles: memory goes up in copies."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(120, 2400)
    rate = limit / r.uniform(20, 60)

    def start(r):
        size, drift = [8.0], Drift(r, .003 * limit, 20)

        def step(t, dt, up):
            body = rate * since(t, at)
            while body > size[0]:
                size[0] *= 1.25
            held = body + .5 * size[0] if t >= at else 0
            return .2 * limit * warm(up, 10) + held + drift.step(dt)
        return step
    return Case(1 * H, 1, start, limit, at)


@shape("burst")
def fan_out(r):
    """A loop starts work without a bound: each second more of it."""
    limit, at, tau = r.choice([256, 512]), r.uniform(90, 1200), r.uniform(10, 30)

    def start(r):
        drift = Drift(r, .003 * limit, 20)

        def step(t, dt, up):
            s = since(t, at)
            return .15 * limit * warm(up, 10) + .9 * limit * (s / tau) ** 2 / 2 + drift.step(dt)
        return step
    return Case(1 * H, 1, start, limit, at)


@shape("burst")
def flood_of_clients(r):
    """After an outage everybody comes back at once, and nobody is turned away."""
    limit, at, seconds = r.choice([256, 512]), r.uniform(150, 2000), r.uniform(20, 45)

    def start(r):
        drift, saw = Drift(r, .005 * limit, 15), [0.0]

        def step(t, dt, up):
            s = since(t, at)
            saw[0] = (saw[0] + .01 * limit * dt) % (.08 * limit)
            return .2 * limit * warm(up, 10) + saw[0] + limit * .85 * (s / seconds) * r.uniform(.97, 1.03) + drift.step(dt)
        return step
    return Case(1 * H, 1, start, limit, at)


@shape("burst")
def broken_parser(r):
    """An endless loop appends: from a quiet 60 MiB at an even rate, in a process a minute and a half old."""
    at, rate = r.uniform(80, 100), r.uniform(12, 25)

    def start(r):
        drift = Drift(r, .4, 10)
        return lambda t, dt, up: 60 * warm(up, 2) + rate * since(t, at) + drift.step(dt)
    return Case(1 * H, 1, start, 512, at)


@shape("burst")
def burst_under_a_sawtooth(r):
    """The same on a heap that swings by itself."""
    limit, at = r.choice([512, 1024]), r.uniform(200, 2400)
    rate = limit / r.uniform(20, 45)

    def start(r):
        heap, load = GoHeap(), Load(r, 100, quiet=.8)

        def step(t, dt, up):
            live = .15 * limit * warm(up, 10) + .6 * rate * since(t, at)
            return 20 + heap.step(live, load.rate(t, dt) * .08 * dt + .4 * rate * dt * (t >= at), dt)
        return step
    return Case(1 * H, 1, start, limit, at)


# ------------------------------------------------------------------------------------------------- health: what runtimes do
@shape("healthy runtime")
def go_by_day(r):
    """GOGC=100 under a day curve: live heap by load, and twice of it resident."""
    def start(r):
        load, heap = Load(r, 200, quiet=.2, weekend=.6), GoHeap()

        def step(t, dt, up):
            now = load.rate(t, dt)
            return 25 + heap.step(40 * warm(up) + .4 * now, now * .03 * dt, dt)
        return step
    return Case(5 * DAY, 10, start)


@shape("healthy runtime")
def jvm_touches_its_heap(r):
    """Regions are touched one after the other until the maximum heap, sized as share of the container, is resident."""
    limit = r.choice([1024, 2048])

    def start(r):
        heap, load = Generations(r, r.uniform(.55, .75) * limit, promote=r.uniform(.01, .1)), Load(r, 50, quiet=.4)
        live = r.uniform(.12, .3) * limit
        return lambda t, dt, up: .1 * limit * warm(up, 120) + heap.step(live * warm(up, 300), load.rate(t, dt) * .05 * dt, dt)
    return Case(4 * DAY, 10, start, limit)


@shape("healthy runtime")
def jvm_gives_back(r):
    """Old generation fills for hours, a collection returns it."""
    def start(r):
        heap = Generations(r, 900, threshold=r.uniform(.5, .7), promote=r.uniform(.02, .08), uncommit=True)
        load = Load(r, 50, quiet=.5)
        return lambda t, dt, up: 90 * warm(up, 60) + heap.step(180 * warm(up, 300), load.rate(t, dt) * .05 * dt, dt)
    return Case(1 * DAY, 1, start)


@shape("healthy runtime")
def python_workers(r):
    """Eight workers of a preforking server: each creeps and is replaced after so many requests."""
    def start(r):
        load, most = Load(r, 40, quiet=.4), r.uniform(8_000, 40_000)
        done = [r.random() * most for _ in range(8)]
        grow = r.uniform(20, 60) / most

        def step(t, dt, up):
            n = load.requests(t, dt) / 8
            for i in range(8):
                done[i] = done[i] + n * r.uniform(.8, 1.2)
                if done[i] > most:
                    done[i] = 0.0
            return 60 + sum(30 + grow * d for d in done) * warm(up, 20)
        return step
    return Case(1 * DAY, 1, start)


@shape("healthy runtime")
def refcount_high_water(r):
    """Size classes peak at different times and keep what they had: creep that grows rarer."""
    def start(r):
        heap, load = Counted(r, classes=16, spread=.4, tau=1800), Load(r, 1, quiet=.5)
        return lambda t, dt, up: 40 + heap.step(120 * warm(up, 20) * (.4 + .6 * load.rate(t, dt)), dt)
    return Case(4 * DAY, 10, start)


@shape("healthy runtime")
def soft_limit_reached(r):
    """GOGC=off with a soft limit: the heap fills to it and stays, by design."""
    limit = r.choice([256, 512])

    def start(r):
        heap, load = GoHeap(5000, r.uniform(.7, .9) * limit), Load(r, 1, quiet=.4)
        rate = r.uniform(.2, 3)
        return lambda t, dt, up: 10 + heap.step(.2 * limit * warm(up), rate * load.rate(t, dt) * dt, dt)
    return Case(2 * DAY, 5, start, limit)


@shape("healthy runtime")
def thread_arenas(r):
    """A heap for each of the threads, as large as the largest request it ever served."""
    def start(r):
        arenas, load = Arenas(r, r.randint(16, 64), .3, 12), Load(r, r.uniform(.02, .5), quiet=.3)
        return lambda t, dt, up: 50 * warm(up) + arenas.step(load.requests(t, dt))
    return Case(3 * DAY, 10, start)


# --------------------------------------------------------------------------------------------------------- health: caches
@shape("healthy cache")
def cache_of_popular_keys(r):
    """No bound but the number of keys: fast at first, ever slower."""
    def start(r):
        cache, load = Cache(r.choice([50_000, 200_000]), .002, zipf=r.uniform(.7, 1.1)), Load(r, r.uniform(5, 60), quiet=.3)
        return lambda t, dt, up: 60 * warm(up) + cache.step(load.requests(t, dt), dt)
    return Case(4 * DAY, 10, start)


@shape("healthy cache")
def cache_to_capacity(r):
    """Filled at the pace of the load, then evicts: nearly a line until it stops."""
    def start(r):
        cache = Cache(5_000_000, .002, zipf=.5, capacity=r.uniform(100, 300))
        load = Load(r, r.uniform(4, 20), quiet=.4)
        return lambda t, dt, up: 120 * warm(up) + cache.step(load.requests(t, dt), dt)
    return Case(2 * DAY, 5, start)


@shape("healthy cache")
def cache_with_expiry(r):
    """Entries live for an hour or for minutes: the cache follows the load."""
    def start(r):
        cache = Cache(400_000, .003, zipf=.8, ttl=r.choice([600, 3600, 4 * H]))
        load = Load(r, r.uniform(20, 60), quiet=.15, weekend=.5)
        return lambda t, dt, up: 70 * warm(up) + cache.step(load.requests(t, dt), dt)
    return Case(5 * DAY, 10, start)


@shape("healthy cache")
def store_with_memtables(r):
    """A log-structured store: tables fill and are flushed, blocks are cached, compaction takes a share now and then."""
    def start(r):
        table, load = r.choice([32, 64]), Load(r, 1, quiet=.3)
        cache, busy = Cache(300_000, .0012, zipf=.8, capacity=r.uniform(80, 200)), Outages(r, 3 * H, 60, 400)
        fill, pool = [0.0], Pool(60, idle=40)

        def step(t, dt, up):
            now = load.rate(t, dt)
            fill[0] = (fill[0] + .05 * now * dt) % table
            return 60 + fill[0] + cache.step(20 * now * dt, dt) + pool.step(1.0 if busy.now(t) else 0.0, dt)
        return step
    return Case(1 * DAY, 1, start)


@shape("healthy cache")
def daily_refill(r):
    """Built anew every night: down to nothing, and up over the morning."""
    def start(r):
        hour, load, box = r.uniform(1, 5) * H, Load(r, r.uniform(10, 40), quiet=.1, phase=.1), {}

        def step(t, dt, up):
            day = int((t - hour) // DAY)
            if box.get("day") != day:
                box.update(day=day, cache=Cache(100_000, .0025, zipf=.7))
            return 90 * warm(up) + box["cache"].step(load.requests(t, dt), dt)
        return step
    return Case(5 * DAY, 10, start)


@shape("healthy cache")
def interned_names(r):
    """A table of strings, classes, compiled expressions: grows with what is new, and little is new after the first day."""
    def start(r):
        load, cache = Load(r, 10, quiet=.3), Cache(1_500_000, .0002, zipf=1.05)
        heap = GoHeap()
        return lambda t, dt, up: 20 + heap.step(40 * warm(up) + cache.step(load.requests(t, dt), dt), dt, dt)
    return Case(7 * DAY, 30, start)


# ----------------------------------------------------------------------------------------------------------- health: load
@shape("healthy load")
def week_of_sessions(r):
    """Memory by open sessions: days, and a weekend after which Monday looks like a leak."""
    def start(r):
        load, pool = Load(r, r.uniform(300, 900), quiet=.1, weekend=.35, sharp=r.uniform(1, 2)), Pool(.4, idle=900)
        return lambda t, dt, up: 80 * warm(up) + pool.step(load.rate(t, dt), dt)
    return Case(14 * DAY, 30, start)


@shape("healthy load")
def flash_crowds(r):
    """Now and then ten minutes of three times the load."""
    def start(r):
        load, pool, crowd = Load(r, 100, quiet=.4), Pool(.5, idle=200), Outages(r, 5 * H, 300, 1500)
        size, heap = [0.0], GoHeap()

        def step(t, dt, up):
            size[0] += ((2.0 if crowd.now(t) else 0.0) - size[0]) * (1 - math.exp(-dt / 90))
            return 40 + heap.step(60 * warm(up) + pool.step(load.rate(t, dt) * (1 + size[0]), dt), 5 * dt, dt)
        return step
    return Case(1 * DAY, 1, start)


@shape("healthy load")
def neighbours_die(r):
    """Other replicas go and come: the load here is half as high again for an hour."""
    def start(r):
        load, pool, gone = Load(r, 100, quiet=.3), Pool(.8, idle=300), Outages(r, 8 * H, 600, 5400)
        return lambda t, dt, up: 90 * warm(up) + pool.step(load.rate(t, dt) * (1.5 if gone.now(t) else 1.0), dt)
    return Case(4 * DAY, 10, start)


@shape("healthy load")
def queue_through_outages(r):
    """What cannot be delivered waits, up to a bound, and goes out when the other side is back."""
    def start(r):
        load, queue, gone = Load(r, 100, quiet=.4), Backlog(.004, bound=r.uniform(120, 260)), Outages(r, 9 * H, 200, 2400)

        def step(t, dt, up):
            n = load.requests(t, dt)
            return 120 * warm(up) + queue.step(n, 0 if gone.now(t) else 300 * dt)
        return step
    return Case(1.5 * DAY, 1, start)


@shape("healthy load")
def buffers_by_largest_request(r):
    """Each of the workers keeps a buffer as large as its largest request, up to the largest that is allowed."""
    def start(r):
        workers, load = Arenas(r, r.randint(8, 32), .2, 8), Load(r, r.uniform(.05, 1), quiet=.3)
        pool = Pool(.2, idle=300)

        def step(t, dt, up):
            return 70 * warm(up) + workers.step(load.requests(t, dt)) + pool.step(40 * load.rate(t, dt), dt)
        return step
    return Case(4 * DAY, 10, start)


@shape("healthy load")
def business_that_grows(r):
    """Two percent more load each day for two weeks."""
    def start(r):
        load, pool, heap = Load(r, 200, quiet=.2), Pool(.3, idle=300), GoHeap()
        return lambda t, dt, up: 30 + heap.step(30 * warm(up) + pool.step(load.rate(t, dt) * 1.02 ** (t / DAY), dt), 3 * dt, dt)
    return Case(14 * DAY, 30, start)


# -------------------------------------------------------------------------------------------- health: work by the clock, starts
@shape("healthy work")
def hourly_report(r):
    """Data is read for minutes, worked on, freed; some hours bring more of it."""
    def start(r):
        job, heap = Job(H, r.random() * H, r.uniform(120, 500), 300), GoHeap()
        size, seen = [150.0], [-1]

        def step(t, dt, up):
            if seen[0] != job.number(t):
                seen[0], size[0] = job.number(t), 150 * r.uniform(.5, 1.3)
            return 60 + heap.step(50 * warm(up), 2 * dt, dt) + size[0] * job.share(t)
        return step
    return Case(1 * DAY, 1, start)


@shape("healthy work")
def nightly_export(r):
    """A climb of an hour once a night, to twice the memory."""
    def start(r):
        job, load, pool = Job(DAY, r.random() * DAY, r.uniform(1200, 6000), 1800), Load(r, 1, quiet=.3), Pool(60, idle=300)
        return lambda t, dt, up: 100 * warm(up) + pool.step(load.rate(t, dt), dt) + 140 * job.share(t)
    return Case(6 * DAY, 10, start)


@shape("healthy work")
def training_rounds(r):
    """Rounds of half an hour: memory grows through each and is freed at its end; every tenth round is larger."""
    def start(r):
        every = r.uniform(900, 3600)
        drift = Drift(r, 2, 60)

        def step(t, dt, up):
            k, s = divmod(up, every)
            return 130 * warm(up) + (170 if int(k) % 10 == 9 else 130) * (s / every) ** r_pow + drift.step(dt)
        r_pow = r.choice([.5, 1.0])
        return step
    return Case(1 * DAY, 1, start)


@shape("healthy work")
def data_loaded_at_start(r):
    """A snapshot is read for minutes after each start; a deploy every few hours."""
    def start(r):
        seconds, size, drift = r.uniform(60, 900), r.uniform(180, 240), Drift(r, 1.5, 60)
        return lambda t, dt, up: 20 + size * min(1, up / seconds) + drift.step(dt)
    every = r.uniform(5, 12) * H
    return Case(1 * DAY, 1, start, restarts=[every * k for k in range(1, 10)])


@shape("healthy work")
def models_on_first_use(r):
    """Each model is loaded when it is first asked for, and kept."""
    def start(r):
        models = [r.uniform(10, 40) for _ in range(r.randint(5, 12))]
        due = [r.expovariate(1 / (3 * H)) for _ in models]
        drift = Drift(r, 2, 120)
        return lambda t, dt, up: 120 * warm(up) + sum(m * min(1, max(0, up - d) / 20) for m, d in zip(models, due)) + drift.step(dt)
    return Case(3 * DAY, 5, start)


@shape("healthy work")
def deploys_of_a_busy_team(r):
    """A new release every few hours, warm within minutes, a little larger or smaller than the last."""
    def start(r):
        base, heap, load = r.uniform(60, 110), GoHeap(), Load(r, 100, quiet=.4)
        cache = Cache(20_000, .002, zipf=.9)

        def step(t, dt, up):
            n = load.requests(t, dt)
            return 20 + heap.step(base * warm(up, 40) + cache.step(n, dt), n * .05, dt)
        return step
    every = r.uniform(2, 6) * H
    return Case(1 * DAY, 1, start, restarts=[every * k for k in range(1, 13)])


@shape("healthy work")
def mapped_files(r):
    """Files are mapped and read: the working set grows to the limit, what cannot be reclaimed does not."""
    limit = r.choice([512, 1024])

    def start(r):
        drift, fill = Drift(r, .01 * limit, 300), r.uniform(1, 8) * H
        return lambda t, dt, up: (.35 * limit * warm(up) + drift.step(dt), .6 * limit * min(1, up / fill), 12)
    return Case(3 * DAY, 10, start, limit)


@shape("healthy work")
def ring_touched_once(r):
    """A trace ring of fixed size is written through for the first time, then over and over."""
    def start(r):
        fill, size, load = r.uniform(.5, 6) * H, r.uniform(60, 160), Load(r, 1, quiet=.5)
        done = [0.0]

        def step(t, dt, up):
            done[0] += load.rate(t, dt) * dt
            return 130 * warm(up) + size * min(1, done[0] / fill)
        return step
    return Case(2 * DAY, 5, start)


# ----------------------------------------------------------------------------------------------------------------- writing
def simulate(case, seed):
    """Rows `(t, MiB, cache MiB, threads, incarnation)`, the limit in MiB, and the leak's episodes."""
    rows, episodes, r = [], [], random.Random(seed)
    t, life, born, due, kills = 0.0, 1, 0.0, list(case.restarts), 0
    step = case.start(r)
    while t <= case.seconds:
        if due and t >= due[0]:
            due.pop(0)
            life, born, step = life + 1, t, case.start(r)
        got = step(t, case.cadence, t - born)
        mib, cache, threads = got if isinstance(got, tuple) else (got, 8.0, 12)
        if case.limit and mib * (1 + KERNEL_SHARE) >= case.limit:
            kills += 1
            episodes.append((born if case.kills > 1 else case.leak, t))
            if case.leak is None or kills >= case.kills:
                break
            life, born, step = life + 1, t + case.cadence, case.start(r)
        else:
            rows.append((t, max(2.0, mib), cache, threads, life))
        t += case.cadence
    limit = case.limit or max(row[1] for row in rows) * r.uniform(1.15, 1.5)
    return rows, limit, episodes


def write(path, rows, limit):
    mib = 1 << 20
    with open(path, "w") as out:
        out.write("t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation\n")
        for t, rss, cache, threads, life in rows:
            used = min(.995 * limit, rss + KERNEL_SHARE * limit + max(0, min(cache, .985 * limit - rss)))
            out.write("%d,%d,%d,%d,%d,%d\n" % (t, int(rss * mib) // 4096 * 4096, int(used * mib) // 4096 * 4096, threads,
                                              int(limit * mib) // 4096 * 4096, life))


def make(name, number, folder):
    """Writes one trace; its rows for labels.csv."""
    family, split, fn = SHAPES[name]
    seed = zlib.crc32(name.encode()) + 7919 * number
    case, trace = fn(random.Random(seed)), "%s-%02d" % (name, number)
    rows, limit, episodes = simulate(case, seed + 1)
    if (case.leak is None) != (not episodes):
        raise SystemExit("%s: %s" % (trace, "a healthy process was killed" if episodes else "never reached its limit"))
    write(os.path.join(folder, trace + ".csv"), rows, limit)
    end = int(rows[-1][0])
    if case.leak is None:
        return [(split, trace, family, "no", "", "", end, case.cadence, name)]
    return [(split, trace, family, "yes", int(a), int(b), end, case.cadence, name) for a, b in episodes]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "out"))
    ap.add_argument("--split", default="all")
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--only", default="")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    if a.list:
        for name, (family, split, fn) in SHAPES.items():
            print("%-4s  %-22s  %-28s  %s" % (split, family, name, fn.__doc__.split("\n")[0]))
        return
    only = set(filter(None, a.only.split(",")))
    for split in ["tune", "held"] if a.split == "all" else a.split.split(","):
        folder, labels = os.path.join(a.out, split), []
        os.makedirs(folder, exist_ok=True)
        for name in (n for n, it in SHAPES.items() if it[1] == split and (not only or n in only)):
            for number in range(a.seeds):
                labels += make(name, number, folder)
        with open(os.path.join(folder, "labels.csv"), "w", newline="") as out:
            w = csv.writer(out)
            w.writerow(["split", "trace", "family", "leak", "t_leak_start", "t_oom", "horizon_s", "cadence_s", "shape"])
            w.writerows(labels)
        print("%s: %d leak episodes, %.1f healthy pod-days" % (
            split, sum(l[3] == "yes" for l in labels), sum(l[6] for l in labels if l[3] == "no") / DAY))


if __name__ == "__main__":
    main()
