"""First book, leaks: by work, behind a runtime's own motion, with their hour, and bursts of tens of seconds."""
import math

from book import Case, since, warm
from mechanisms import (DAY, H, Backlog, Cache, Counted, Drift, Generations, GoHeap, Job, Load, Outages, Pool, pareto, poisson)
from parts import both, collected, counted, drifting, fixed, growing, piling, pooled, process, requested, warming
from shapes_pages import shape

WORK, RUNTIME, HOUR, BURST = "leak by work", "leak behind a runtime", "leak with its hour", "burst"


def served(load, live, alloc, kept):
    """A Go heap under requests: each allocates `alloc` MiB, and `kept(t, n)` is what stays of n of them."""
    heap, lost = GoHeap(), [0.0]

    def part(t, dt, up):
        n = load.requests(t, dt)
        lost[0] += kept(t, n)
        return heap.step(live * warm(up) + lost[0], n * alloc, dt)
    return part


def tally(r, gap, at):
    """How many came, one in `gap` seconds from `at` on: the count in a list, and the function that counts on."""
    count = [0]

    def now(t, dt):
        count[0] += poisson(r, dt / gap) if t >= at else 0
        return count[0]
    return count, now


@shape(WORK)
def request_leak_go(r):
    """Every request leaves a few hundred bytes on a Go heap; even load."""
    limit, rps, at = r.choice([256, 512, 1024]), r.uniform(50, 400), r.uniform(.3, 2) * H
    leak = limit / r.uniform(3, 14) / H / rps

    def start(r):
        return process(fixed(25), served(Load(r, rps, quiet=.9), .12 * limit, .05, lambda t, n: leak * n if t >= at else 0))
    return Case(4 * DAY, 5, start, limit, at)


@shape(WORK)
def request_leak_week(r):
    """The same on a load with nights and a weekend: it rests, and goes on."""
    limit, rps, at = r.choice([512, 1024, 2048]), r.uniform(20, 80), r.uniform(2, 20) * H
    leak = limit / r.uniform(40, 120) / H / rps

    def start(r):
        load = Load(r, rps, quiet=.15, weekend=.4)
        return process(fixed(40), served(load, .15 * limit, .05, lambda t, n: leak * n if t >= at else 0))
    return Case(30 * DAY, 30, start, limit, at)


@shape(WORK)
def job_leak_heavy_tail(r):
    """Jobs of very different size, each leaves a share of its input behind."""
    limit, gap, at = r.choice([512, 1024]), r.uniform(5, 30), r.uniform(.2, 1) * H
    unit = limit / r.uniform(2, 10) / H * gap / 3.2

    def start(r):
        left = piling(lambda t, dt: sum(pareto(r, unit, 60 * unit) for _ in range(poisson(r, dt / gap))), at)
        return process(left, fixed(20), counted(Counted(r), warming(.2 * limit)))
    return Case(3 * DAY, 5, start, limit, at)


@shape(WORK)
def error_leak(r):
    """Only failed requests leak, and failures come in spells."""
    limit, at, rps = r.choice([256, 512]), r.uniform(.5, 2) * H, r.uniform(20, 60)
    leak = limit / r.uniform(.8, 2) / H / rps

    def start(r):
        load, bad = Load(r, rps, quiet=.7), Outages(r, 1.5 * H, 120, 900, at)
        return process(fixed(20), served(load, .12 * limit, .04,
                                         lambda t, n: leak * n * (.9 if bad.now(t) else .004) if t >= at else 0))
    return Case(8 * DAY, 5, start, limit, at)


@shape(WORK)
def tenant_leak(r):
    """A registry keeps every tenant for ever; tenants come in working hours."""
    limit, at, rate = r.choice([512, 1024]), r.uniform(1, 8) * H, r.uniform(20, 60)
    size = limit / r.uniform(30, 80) / rate

    def start(r):
        load = Load(r, rate / H, quiet=.05)

        def tenants(t, dt):
            n = load.requests(t, dt)
            return sum(size * r.uniform(.3, 1.7) for _ in range(n)) if t >= at else 0
        return process(fixed(30), collected(GoHeap(), both(warming(.15 * limit), piling(tenants)), 4))
    return Case(20 * DAY, 30, start, limit, at)


@shape(WORK)
def reconnect_leak(r):
    """Each lost connection is opened anew and the old one's buffers stay; a broker drops all of them now and then."""
    limit, at, conns = r.choice([256, 512]), r.uniform(.3, 1) * H, r.randint(20, 60)
    size, every = r.uniform(.1, .3), r.uniform(240, 900)

    def start(r):
        lost, due = [0.0], [at + r.expovariate(1 / every)]

        def buffers(t, dt, up):
            lost[0] += size * poisson(r, conns * dt / (4 * H)) if t >= at else 0
            if t >= due[0]:
                lost[0] += size * conns * r.uniform(.3, 1)
                due[0] = t + r.expovariate(1 / every)
            return conns * size + .1 * limit * warm(up) + lost[0]
        return process(fixed(25), collected(GoHeap(), buffers, 2))
    return Case(3 * DAY, 5, start, limit, at)


@shape(WORK)
def cardinality_leak(r):
    """Label values of a metrics registry: new ones grow rarer as the popular ones have all been seen, and never end."""
    limit = r.choice([512, 1024])

    def start(r):
        load, cache = Load(r, 40, quiet=.7), Cache(30_000_000, limit / 2_200_000, zipf=.75)
        return process(fixed(60), requested(cache, load), warming(.08 * limit))
    return Case(20 * DAY, 30, start, limit, 0.0)


@shape(WORK)
def batch_run_leak(r):
    """A job by the clock leaves some of its data behind at each run."""
    limit, every, at = r.choice([512, 1024]), r.choice([900, 1800, 3600]), r.uniform(.5, 1.5) * H
    left, need = limit * r.uniform(.02, .05), limit * r.uniform(.08, .15)

    def start(r):
        job = Job(every, r.random() * every, 60, 120)
        first = job.number(at)
        lost, data = lambda t, dt, up: left * max(0, job.number(t) - first), lambda t, dt, up: need * job.share(t)
        return process(fixed(25), collected(GoHeap(), both(warming(.15 * limit), lost, data), 3))
    return Case(4 * DAY, 5, start, limit, at)


@shape(RUNTIME)
def old_generation_leak(r):
    """A JVM whose live set grows; touched regions stay resident, and its maximum heap leaves too little for the rest."""
    limit, at = r.choice([1024, 2048]), r.uniform(.5, 3) * H
    rate = limit / r.uniform(6, 20) / H

    def start(r):
        heap, load = Generations(r, .62 * limit), Load(r, 100, quiet=.5)
        live = both(warming(.12 * limit, 60), growing(at, rate))
        return process(fixed(.1 * limit), collected(heap, live, lambda t, dt: load.rate(t, dt) * .02))
    return Case(4 * DAY, 5, start, limit, at)


@shape(RUNTIME)
def old_generation_leak_uncommit(r):
    """A collector that gives memory back: a wide sawtooth with a rising floor."""
    limit, at = r.choice([512, 1024]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(4, 15) / H

    def start(r):
        heap, load = Generations(r, .8 * limit, threshold=.5, promote=.1, uncommit=True), Load(r, 100, quiet=.6)
        live = both(warming(.1 * limit, 60), growing(at, rate))
        return process(fixed(.08 * limit), collected(heap, live, lambda t, dt: load.rate(t, dt) * .03))
    return Case(4 * DAY, 5, start, limit, at)


@shape(RUNTIME)
def soft_limit_leak(r):
    """A Go heap under a soft limit: flat at the limit while the collector works, then gone."""
    limit, at = r.choice([256, 512]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(4, 12) / H

    def start(r):
        heap = GoHeap(100, r.uniform(.8, .88) * limit)
        return process(fixed(12), collected(heap, both(warming(.18 * limit), growing(at, rate)), 1.5))
    return Case(3 * DAY, 5, start, limit, at)


@shape(RUNTIME)
def native_leak(r):
    """Memory of a C library leaks beside a quiet Go heap."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(.3, 3) * H
    rate = limit / r.uniform(2, 30) / H

    def start(r):
        return process(fixed(20), collected(GoHeap(), warming(.15 * limit), 2), growing(at, rate), drifting(r, .004 * limit, 60))
    return Case(3 * DAY, 5, start, limit, at)


@shape(RUNTIME)
def fragmentation_leak(r):
    """Long-lived crumbs pin pages: the freed rest of each cannot be used again, and the heap climbs."""
    limit, at = r.choice([512, 1024]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(15, 50) / H

    def start(r):
        heap, load = Counted(r, spread=.5, trim=.2), Load(r, 1, quiet=.4)
        pinned = piling(lambda t, dt: rate * load.rate(t, dt) * dt, at)
        return process(pinned, fixed(30), counted(heap, warming(.15 * limit)))
    return Case(8 * DAY, 10, start, limit, at)


@shape(RUNTIME)
def two_leaks(r):
    """A slow one from the start and, hours later, a faster one."""
    limit, at = r.choice([512, 1024]), r.uniform(6, 14) * H
    slow, fast = limit / r.uniform(90, 160) / H, limit / r.uniform(3, 10) / H

    def start(r):
        load, live = Load(r, 50, quiet=.4), both(warming(.12 * limit), growing(0, slow), growing(at, fast))
        return process(fixed(25), collected(GoHeap(), live, lambda t, dt: load.rate(t, dt) * .05))
    return Case(5 * DAY, 10, start, limit, 0.0)


@shape(RUNTIME)
def leak_under_a_day(r):
    """A leak of some percent a day below a load curve that is ten times as high."""
    limit, at = r.choice([1024, 2048]), r.uniform(4, 30) * H
    rate = limit / r.uniform(60, 140) / H

    def start(r):
        load = Load(r, 1, quiet=.2, weekend=.5)
        return process(warming(.15 * limit), pooled(Pool(.25 * limit, idle=600), load), growing(at, rate))
    return Case(20 * DAY, 30, start, limit, at)


@shape(RUNTIME)
def leak_while_a_cache_fills(r):
    """A cache fills up to its capacity, a leak goes on."""
    limit = r.choice([512, 1024])
    rate = limit / r.uniform(15, 40) / H

    def start(r):
        cache = Cache(400_000, limit * .4 / 400_000, zipf=.8, capacity=.3 * limit)
        load = Load(r, r.uniform(5, 30), quiet=.6)
        return process(fixed(30), warming(.1 * limit), requested(cache, load), growing(0, rate))
    return Case(3 * DAY, 10, start, limit, 0.0)


@shape(HOUR)
def leak_since_a_deploy(r):
    """Two good releases, then one that leaks from its first second."""
    limit, at = r.choice([256, 512]), r.uniform(5, 9) * H
    rate = limit / r.uniform(1.5, 8) / H

    def start(r):
        lost = lambda t, dt, up: rate * up if t >= at else 0
        return process(fixed(20), collected(GoHeap(), both(warming(.15 * limit), lost), 2))
    return Case(3 * DAY, 5, start, limit, at, restarts=[at / 2, at])


@shape(HOUR)
def leak_after_days(r):
    """A flag is set after days of health."""
    limit, at = r.choice([512, 1024]), r.uniform(2.5, 4) * DAY
    rate = limit / r.uniform(10, 40) / H

    def start(r):
        load = Load(r, 60, quiet=.3)
        usual = lambda t, dt, up: (.12 + .06 * load.rate(t, dt) / 60) * limit * warm(up)
        return process(fixed(30), collected(GoHeap(), both(usual, growing(at, rate)), 3))
    return Case(10 * DAY, 10, start, limit, at)


@shape(HOUR)
def retry_storm(r):
    """Retries beget retries: the backlog feeds its own growth."""
    limit, at, tau = r.choice([256, 512]), r.uniform(.3, 1.5) * H, r.uniform(120, 900)

    def start(r):
        late = lambda t, dt, up: min(1e4, .004 * limit * (math.exp(min(20, since(t, at) / tau)) - 1))
        return process(warming(.25 * limit), late, drifting(r, .004 * limit, 30))
    return Case(1 * DAY, 1, start, limit, at)


@shape(HOUR)
def unread_buffer(r):
    """The log's reader is gone; lines wait in memory, as many as the load writes."""
    limit, at = r.choice([256, 512]), r.uniform(.5, 2) * H
    rate = limit / r.uniform(300, 2400)

    def start(r):
        queue, load = Backlog(1.0), Load(r, 1, quiet=.8, wander=.15)

        def waiting(t, dt, up):
            lines = rate * load.rate(t, dt) * dt
            return queue.step(lines, lines if t < at else 0)
        return process(warming(.25 * limit), waiting)
    return Case(1 * DAY, 1, start, limit, at)


@shape(HOUR)
def slow_consumer(r):
    """Producer and consumer are even by night; by day the queue grows, and one day it is the end."""
    limit = r.choice([512, 1024])

    def start(r):
        load, queue, served = Load(r, 100, quiet=.3, phase=0.0), Backlog(limit / 400_000), r.uniform(58, 66)
        waiting = lambda t, dt, up: .8 * queue.step(load.requests(t, dt), served * dt)
        return process(fixed(30), collected(GoHeap(), both(warming(.1 * limit), waiting), 2))
    return Case(12 * DAY, 10, start, limit, 0.0)


@shape(HOUR)
def stuck_threads(r):
    """Every call that times out leaves a thread with its stack and buffers."""
    limit, at, gap = r.choice([256, 512]), r.uniform(.3, 1) * H, r.uniform(2, 12)
    size = r.uniform(.08, .3)

    def start(r):
        stuck, now = tally(r, gap, at)
        return process(warming(.25 * limit), lambda t, dt, up: now(t, dt) * size, cache=10, threads=lambda *_: 20 + stuck[0])
    return Case(3 * DAY, 5, start, limit, at)


@shape(HOUR)
def crash_loop(r):
    """Leaks from its first second and starts again after each kill."""
    limit = r.choice([256, 512])
    rate = limit / r.uniform(240, 1500)

    def start(r):
        return process(warming(.08 * limit, 3), lambda t, dt, up: rate * up, drifting(r, .003 * limit, 30), fixed(8))
    return Case(2 * H, 1, start, limit, 0.0, kills=4)


@shape(HOUR)
def dead_children(r):
    """A supervisor starts a worker for each that hangs; the hung ones keep their memory."""
    limit, at, gap = r.choice([512, 1024]), r.uniform(.3, 1) * H, r.uniform(120, 600)
    size = limit * r.uniform(.01, .03)

    def start(r):
        heap, (hung, now) = Counted(r, trim=.5), tally(r, gap, at)
        return process(lambda t, dt, up: now(t, dt) * size, counted(heap, warming(.25 * limit)), cache=20,
                       threads=lambda *_: 12 + 4 * hung[0])
    return Case(2 * DAY, 5, start, limit, at)


@shape(BURST)
def runaway_query(r):
    """One query materialises its result: tens of seconds from quiet to the kill."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(120, 2400)
    rate = limit / r.uniform(15, 45)

    def start(r):
        return process(fixed(10), collected(GoHeap(), warming(.12 * limit, 10), 1), growing(at, rate), drifting(r, .004 * limit, 20))
    return Case(1 * H, 1, start, limit, at)


@shape(BURST)
def upload_held_whole(r):
    """A body is read into a slice that doubles: memory goes up in copies."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(120, 2400)
    rate = limit / r.uniform(20, 60)

    def start(r):
        size = [8.0]

        def held(t, dt, up):
            body = rate * since(t, at)
            while body > size[0]:
                size[0] *= 1.25
            return body + .5 * size[0] if t >= at else 0
        return process(warming(.2 * limit, 10), held, drifting(r, .003 * limit, 20))
    return Case(1 * H, 1, start, limit, at)


@shape(BURST)
def fan_out(r):
    """A loop starts work without a bound: each second more of it."""
    limit, at, tau = r.choice([256, 512]), r.uniform(90, 1200), r.uniform(10, 30)

    def start(r):
        started = lambda t, dt, up: .9 * limit * (since(t, at) / tau) ** 2 / 2
        return process(warming(.15 * limit, 10), started, drifting(r, .003 * limit, 20))
    return Case(1 * H, 1, start, limit, at)


@shape(BURST)
def flood_of_clients(r):
    """After an outage everybody comes back at once, and nobody is turned away."""
    limit, at, seconds = r.choice([256, 512]), r.uniform(150, 2000), r.uniform(20, 45)

    def start(r):
        drift, saw = Drift(r, .005 * limit, 15), [0.0]

        def teeth(t, dt, up):
            saw[0] = (saw[0] + .01 * limit * dt) % (.08 * limit)
            return saw[0]
        clients = lambda t, dt, up: limit * .85 * (since(t, at) / seconds) * r.uniform(.97, 1.03)
        return process(warming(.2 * limit, 10), teeth, clients, lambda t, dt, up: drift.step(dt))
    return Case(1 * H, 1, start, limit, at)


@shape(BURST)
def broken_parser(r):
    """An endless loop appends: from a quiet 60 MiB at an even rate, in a process a minute and a half old."""
    at, rate = r.uniform(80, 100), r.uniform(12, 25)
    return Case(1 * H, 1, lambda r: process(warming(60, 2), growing(at, rate), drifting(r, .4, 10)), 512, at)


@shape(BURST)
def burst_under_a_sawtooth(r):
    """The same on a heap that swings by itself."""
    limit, at = r.choice([512, 1024]), r.uniform(200, 2400)
    rate = limit / r.uniform(20, 45)

    def start(r):
        load, live = Load(r, 100, quiet=.8), both(warming(.15 * limit, 10), growing(at, .6 * rate))
        return process(fixed(20), collected(GoHeap(), live, lambda t, dt: load.rate(t, dt) * .08 + .4 * rate * (t >= at)))
    return Case(1 * H, 1, start, limit, at)
