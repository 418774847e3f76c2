"""Second book, leaks behind runtimes, stores, batches, deploys and limits: what an outside observer has to see through."""
from book import Case, missed, since, warm
from mechanisms import DAY, H, Drift, Job
from mechanisms2 import (EVENING, EVEN, OFFICE, Backends, Clock, G1, Generational, GoPacer, HeadBlock, Lsm, V8, Week, ZHeap, base)
from parts import both, growing, managed, piling, process
from second_pages import leak

RUNTIME, TIME = "leak behind a runtime", "leak with a story"


@leak(RUNTIME, "Class loaders that outlive a hot redeploy: spring-projects/spring-boot#19385, pgjdbc/pgjdbc#3089")
def class_loaders(r):
    """A shared test server: each redeploy leaves the classes of the last, and for a moment both are in use."""
    limit, at = r.choice([1024, 2048]), r.uniform(.5, 2) * H
    gap, step = r.uniform(900, 3000), r.uniform(.018, .045) * limit

    def start(r):
        heap, clock = G1(r, .42 * limit), Clock(r, gap, at)
        week = Week(r, 10, EVEN)
        return process(base(r, .14 * limit, 60), managed(heap, base(r, .12 * limit, 90), lambda t, dt: .4 * week.rate(t, dt)),
                       piling(lambda t, dt: step * r.uniform(.9, 1.1) * clock.ticks(t)), threads=64)
    return Case(3 * DAY, 5, start, limit, at)


@leak(RUNTIME, "Pooled direct buffers without release(): chunks of 4 to 16 MiB, netty/netty#8317, netty/netty#11754")
def unreleased_buffers(r):
    """The heap is quiet; chunk after chunk is taken for buffers that nobody gives back."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(.3, 2) * H, r.uniform(2, 8)
    chunk = r.choice([4, 16])

    def start(r):
        heap, week, used = G1(r, .38 * limit, .38 * limit), Week(r, 30, EVEN, weekend=.7, sway=.12), [0.0]

        def chunks(t, dt, up):
            used[0] += .55 * limit / hours / H / 27 * week.rate(t, dt) * dt if t >= at else 0
            return chunk * (2 + int((used[0] + chunk * .4) / chunk))
        return process(base(r, .1 * limit, 60), managed(heap, base(r, .1 * limit, 60), lambda t, dt: .3 * week.rate(t, dt)), chunks,
                       threads=48)
    return Case(1.5 * DAY, 5, start, limit, at, read=[missed(300, 5, 15)])


@leak(RUNTIME, "Reference-counted binaries held by a process that never collects: rabbitmq/rabbitmq-server#1193, elixir-lang/elixir#3504")
def router_holds_binaries(r):
    """Now and then a collection frees a part of it; what a second, idle process holds is never freed."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(1, 4) * H, r.uniform(9, 26)

    def start(r):
        week, part, whole = Week(r, 100, EVENING, weekend=.9), [0.0], [0.0]
        often = Clock(r, 1500)

        def binaries(t, dt, up):
            new = .62 * limit / hours / H / 50 * week.rate(t, dt) * dt
            whole[0] += .8 * new if t >= at else 0
            part[0] += 3 * new if t >= at else .6 * new
            if often.ticks(t):
                part[0] *= r.uniform(.05, .5)
            return part[0] + whole[0]
        return process(base(r, .2 * limit), binaries, threads=28)
    return Case(4 * DAY, 5, start, limit, at)


@leak(RUNTIME, "Native memory freed by cleaners, which only a full collection runs: java.lang.ref.Cleaner docs")
def cleaners_run_late(r):
    """Sawtooth of hours whose floor and top rise: each full collection frees three quarters of what it should."""
    limit, at, hours = r.choice([1024, 2048]), r.uniform(1, 4) * H, r.uniform(12, 24)

    def start(r):
        native, left, budget, week = [0.0], [0.0], .3 * limit, Week(r, 1, EVEN, weekend=.8)

        def cleaned(t, dt, up):
            native[0] += .3 * limit / (1.6 * H) * week.rate(t, dt) * dt
            if native[0] >= budget:
                left[0] += .3 * limit * 1.6 / hours * r.uniform(.8, 1.2) if t >= at else 0
                native[0] = .04 * limit
            return native[0] + left[0]
        return process(base(r, .3 * limit, 120), cleaned, threads=70)
    return Case(5 * DAY, 10, start, limit, at)


@leak(RUNTIME, "GOMEMLIMIT does not count C memory, and GOGC=off fills to it: Go's guide to its collector, golang/go#79179")
def c_beside_the_soft_limit(r):
    """Flat at 70 to 78 % by design; then a C library leaks on top of it."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(3, 9) * H, r.uniform(1.5, 8)

    def start(r):
        heap, week = GoPacer(r, None, r.uniform(.7, .78) * limit), Week(r, 20, OFFICE, begin=8)
        images = piling(lambda t, dt: .3 * limit / hours / H * r.uniform(.5, 1.5) * dt, at)
        return process(managed(heap, base(r, .25 * limit), lambda t, dt: .4 + .2 * week.rate(t, dt)), images)
    return Case(2 * DAY, 5, start, limit, at)


@leak(RUNTIME, "A maximum heap as large as the container, or larger: JDK docs on -Xmx and MaxRAMPercentage")
def heap_set_too_large(r):
    """Nothing leaks: old regions fill as they may, and the rest of the JVM has no room."""
    limit = r.choice([1024, 2048])
    alloc = r.uniform(.6, 2) * limit / 1024

    def start(r):
        heap, week = G1(r, 1.05 * limit, threshold=.85, survive=.05), Week(r, 1, EVEN, weekend=.8, sway=.15)
        return process(base(r, .12 * limit, 90), managed(heap, base(r, .2 * limit, 120), lambda t, dt: alloc * week.rate(t, dt)),
                       threads=80)
    return Case(4 * DAY, 5, start, limit, 0.0)


@leak(RUNTIME, "Closures kept alive below a maximum old space larger than the container: Node.js docs on --max-old-space-size")
def closures_in_a_sawtooth(r):
    """The old generation swings by half of itself; its floor goes up."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(1, 4) * H, r.uniform(4, 16)

    def start(r):
        heap, week = V8(r, 2 * limit), Week(r, 50, EVENING, weekend=1.0)
        live = both(base(r, .15 * limit, 60), piling(lambda t, dt: .6 * limit / hours / H / 27 * week.calls(t, dt), at))
        return process(base(r, 48), managed(heap, live, lambda t, dt: .06 * week.rate(t, dt)))
    return Case(3 * DAY, 5, start, limit, at)


@leak(RUNTIME, "A leak in a heap that is given back after each collection (ZGC, JEP 351), its maximum above the container")
def floor_under_zgc(r):
    """Full sawteeth of many minutes, thirty percent of the limit high, on a floor that rises."""
    limit, at, hours = r.choice([1024, 2048]), r.uniform(1, 4) * H, r.uniform(8, 24)

    def start(r):
        heap, week, lost = ZHeap(r, .38 * limit), Week(r, 1, EVEN, weekend=.9), growing(at, .5 * limit / hours / H)
        pace = .3 * limit / r.uniform(400, 1200)
        return process(base(r, .12 * limit, 60), managed(heap, base(r, .08 * limit), lambda t, dt: pace * week.rate(t, dt)), lost,
                       threads=55)
    return Case(3 * DAY, 5, start, limit, at)


@leak(RUNTIME, "Iterators that pin blocks in a store whose page cache had filled the rest: starkware-libs/sequencer#14064 turned round")
def iterators_squeeze_page_cache(r):
    """The working set stands at the limit from the first hour; inside it, memory takes the room of cache."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(2, 8) * H, r.uniform(6, 20)

    def start(r):
        store, week = Lsm(r, .04 * limit, .16 * limit), Week(r, 1, EVEN, weekend=.8)
        pinned = piling(lambda t, dt: .55 * limit / hours / H * r.uniform(.2, 1.8) * dt, at)
        fill = r.uniform(.3, 2) * H
        return process(base(r, .12 * limit), lambda t, dt, up: store.step(.0006 * limit * week.rate(t, dt) * dt, .02 * dt, dt), pinned,
                       cache=lambda t, dt, up: limit * min(1.0, up / fill))
    return Case(3 * DAY, 5, start, limit, at)


@leak(TIME, "A slow leak meets a batch: the kill comes at the top of a run: coroot/coroot#29 for jobs by the clock")
def killed_at_a_batch(r):
    """Between the runs there is room for hours more; a run has none."""
    limit, at, hours = r.choice([512, 1024, 2048]), r.uniform(2, 8) * H, r.uniform(24, 50)
    every = r.choice([2, 4, 6]) * H

    def start(r):
        job, heap, sizes = Job(every, r.random() * every, r.uniform(120, 600), r.uniform(200, 900), 40), GoPacer(r, 50), {}

        def batch(t, dt, up):
            size = sizes.setdefault(job.number(t), r.uniform(.2, .28))
            return size * limit * job.share(t)
        live = both(base(r, .2 * limit), growing(at, .4 * limit / hours / H))
        return process(base(r, 20), managed(heap, live, 1.5), batch)
    return Case(8 * DAY, 10, start, limit, at)


@leak(TIME, "Somebody raises the limit in place, twice, and goes to bed: Kubernetes in-place pod resize, VPA")
def limit_raised_twice(r):
    """The leak takes each new room as the old one; the limit's column moves."""
    limit, at, hours = r.choice([256, 512]), r.uniform(1, 3) * H, r.uniform(5, 10)
    when = [(at + .7 * hours * H, 1.5), (at + 1.5 * hours * H, 1.33)]

    def start(r):
        heap, week = GoPacer(r, 60), Week(r, 1, EVEN, weekend=.8)
        live = both(base(r, .22 * limit), piling(lambda t, dt: .4 * limit / hours / H * week.rate(t, dt) * dt, at))
        return process(base(r, 16), managed(heap, live, 1.2))
    return Case(5 * DAY, 5, start, limit, at, resizes=when)


@leak(TIME, "Two leaks: a slow one by time, and one behind a flag that is off for hours in between (a general pattern)")
def flag_on_flag_off(r):
    """Stands still for two to five hours in the middle, as if mended."""
    limit, at = r.choice([512, 1024]), r.uniform(1, 4) * H
    off = at + r.uniform(3, 5) * H
    on, fast = off + r.uniform(2, 5) * H, .3 * limit / r.uniform(4, 7) / H

    def start(r):
        heap, flag = GoPacer(r, 50), piling(lambda t, dt: fast * dt * r.uniform(.7, 1.3) * (t < off or t > on), at)
        return process(base(r, 25), managed(heap, both(base(r, .18 * limit), flag), 2), growing(at, .004 * limit / H))
    return Case(4 * DAY, 5, start, limit, at)


@leak(TIME, "A replay of the log brings the same memory back: prometheus/prometheus#6934, prometheus/prometheus#13939")
def replay_loop(r):
    """Killed once after hours of new series; each next life reads them in again within minutes, and sooner dies."""
    limit, at = r.choice([1024, 2048]), r.uniform(1, 3) * H
    lives = []

    def start(r):
        number = len(lives)
        lives.append(number)
        head, drift = HeadBlock(r.random() * 2 * H, .5, .2), Drift(r, .004 * limit, 60)
        rate = .5 * limit / r.uniform(1.2, 2.5) / H
        replay = r.uniform(120, 260) * .8 ** number
        if number == 0:
            return process(base(r, .1 * limit), lambda t, dt, up: head.step(t, .3 * limit, dt) + rate * since(t, at) + drift.step(dt))
        return process(base(r, .1 * limit, 4), lambda t, dt, up: .8 * limit * up / replay + drift.step(dt))
    return Case(12 * H, 1, start, limit, lambda born: at if born == 0 else born, kills=3)


@leak(TIME, "A backlog that grows while the consumer is down kills it at once: fluent/fluent-bit#2247, scality/metalk8s#3376")
def backlog_loop(r):
    """Lives of a quarter of an hour, then of minutes: each finds more waiting than the last."""
    limit = r.choice([256, 512])
    lives, first = [], r.uniform(500, 1100)

    def start(r):
        number = len(lives)
        lives.append(number)
        taken, seconds = Drift(r, .1, 8), max(45.0, first * .62 ** number)
        queue = piling(lambda t, dt: .85 * limit / seconds * dt * max(0.0, 1 + taken.step(dt)))
        return process(base(r, .14 * limit, 3), queue)
    return Case(3 * H, 1, start, limit, 0.0, kills=3)


@leak(TIME, "A leak that daily deploys hide, until a long weekend without one (a general pattern)")
def long_weekend(r):
    """Three days of deploys reset it; then nobody deploys."""
    limit, hours = r.choice([512, 1024]), r.uniform(34, 55)
    deploys = [day * DAY + 9 * H + r.uniform(0, 8) * H for day in range(3)]

    def start(r):
        heap, week = GoPacer(r, 60), Week(r, 1, EVENING, weekend=.8)
        live = both(base(r, .2 * limit), piling(lambda t, dt: .62 * limit / 1.6 / hours / H / .5 * week.rate(t, dt) * dt))
        return process(base(r, 25), managed(heap, live, 1.5))
    return Case(12 * DAY, 30, start, limit, 0.0, restarts=deploys)


@leak(TIME, "Workers of old configurations that wait for WebSockets to close: nginx/kubernetes-ingress#1116")
def reloads_pile_up(r):
    """A cluster that changes often reloads often; each reload leaves a set of workers for a day."""
    limit, at = r.choice([512, 1024]), r.uniform(2, 5) * H
    gap, mib = r.uniform(600, 1500), r.uniform(.016, .028) * limit

    def start(r):
        workers, seldom, often = Generational(mib, 40 * H), Clock(r, 30 * H), Clock(r, gap, at)

        def generations(t, dt, up):
            for _ in range(seldom.ticks(t) + often.ticks(t)):
                workers.reload(t)
            return workers.step(t)
        return process(base(r, .2 * limit), generations, threads=lambda t, dt, up: 4 * (1 + len(workers.old)))
    return Case(3 * DAY, 5, start, limit, at)


@leak(TIME, "Prepared statements kept by each of a pool's backends, nothing recycles them: PostgreSQL docs on PREPARE")
def backends_never_recycled(r):
    """Thirty processes learn statement after statement; the pool keeps them for ever."""
    limit, at, days = r.choice([1024, 2048]), r.uniform(2, 12) * H, r.uniform(1, 2.5)

    def start(r):
        week, young = Week(r, 1, OFFICE, weekend=.5), Backends(r, 30, 1e9, .003 * limit, .003 * limit)
        shared, fill = .25 * limit, r.uniform(1, 3) * H
        lost = piling(lambda t, dt: .6 * limit / days / DAY / .42 * week.rate(t, dt) * dt, at)
        return process(base(r, .05 * limit), lambda t, dt, up: young.step(up) + shared * warm(up, fill), lost, threads=34,
                       cache=lambda t, dt, up: .3 * limit)
    return Case(12 * DAY, 10, start, limit, at)
