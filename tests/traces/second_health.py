"""Second book, healthy: runtimes, caches and stores, which grow for reasons of their own and stop where their software does."""
from book import Case, missed, warm
from mechanisms import DAY, H, Drift, Outages, Pool
from mechanisms2 import (COMMUTE, EVENING, EVEN, OFFICE, Backends, Clock, Entries, ForkedSave, G1, GoPacer, HeadBlock, Lsm,
                         PyArenas, Slabs, ThreadHeaps, V8, Visits, Week, ZHeap, base, lognormal)
from parts import both, managed, process
from second_pages import healthy

RUNTIME, STORE = "healthy runtime", "healthy store"


@healthy(RUNTIME, "GOGC=100, a forced collection in idle minutes, a scavenger that gives back slowly: Go's guide to its collector")
def go_office_hours(r):
    """Live heap by requests in flight; mornings take pages that evenings give back."""
    def start(r):
        week, heap, flight = Week(r, 150), GoPacer(r, 100, scavenge=r.uniform(.02, .3)), Pool(.35, idle=60)

        def live(t, dt, up):
            return 45 * warm(up) + flight.step(week.rate(t, dt), dt)
        return process(base(r, 22), managed(heap, live, lambda t, dt: .06 * week.rate(t, dt)))
    return Case(2 * DAY, 10, start)


@healthy(RUNTIME, "GOMEMLIMIT at 85 % of the container, reached by bursts only: Go's guide to its collector")
def go_soft_limit_in_bursts(r):
    """Some minutes of large requests press the heap against the soft limit; it is given back within the hour."""
    limit = r.choice([512, 1024])

    def start(r):
        heap, week, busy = GoPacer(r, 100, r.uniform(.78, .86) * limit, .1), Week(r, 1, EVEN, weekend=.8), Outages(r, 4 * H, 200, 1200)
        large = [0.0]

        def live(t, dt, up):
            large[0] += ((.22 * limit if busy.now(t) else 0) - large[0]) * (1 - 2.718 ** (-dt / 60))
            return .17 * limit * warm(up) + large[0]
        return process(base(r, 18), managed(heap, live, lambda t, dt: 2 * week.rate(t, dt) + .1 * large[0]))
    return Case(1 * DAY, 5, start, limit)


@healthy(RUNTIME, "-Xms = -Xmx without AlwaysPreTouch: pages come as regions are used, JDK docs on G1")
def g1_fixed_heap(r):
    """A heap of 55 to 65 % of the container is touched region by region; the rest is for metaspace, code and threads."""
    limit = r.choice([1024, 2048, 4096])

    def start(r):
        heap, week = G1(r, r.uniform(.55, .65) * limit, survive=r.uniform(.02, .06)), Week(r, 1, OFFICE)
        alloc = limit * r.uniform(.0008, .004)
        return process(base(r, .13 * limit, 150), managed(heap, base(r, .14 * limit, 300), lambda t, dt: alloc * week.rate(t, dt)),
                       threads=90)
    return Case(2 * DAY, 10, start, limit)


@healthy(RUNTIME, "AlwaysPreTouch and MaxRAMPercentage=75 beside a large native part: JDK docs; a pod that simply runs high")
def jvm_touched_at_start(r):
    """Stands at 90 to 95 % from its second minute on, for ever."""
    limit = r.choice([2048, 4096])

    def start(r):
        heap, native = .75 * limit, r.uniform(.15, .19) * limit
        return process(base(r, heap, 12, 0), base(r, native, 40, .015), threads=120)
    return Case(2 * DAY, 10, start, limit)


@healthy(RUNTIME, "G1PeriodicGCInterval gives memory of idle hours back: JEP 346")
def g1_that_shrinks(r):
    """Large by day, small by night; each day about as large as the last."""
    def start(r):
        heap, week, flight = G1(r, 900, threshold=.5, survive=.03, shrink=True), Week(r, 80), Pool(2.2, idle=120)

        def live(t, dt, up):
            return 120 * warm(up, 200) + flight.step(week.rate(t, dt), dt)
        return process(base(r, 130, 100), managed(heap, live, lambda t, dt: .12 * week.rate(t, dt)), threads=70)
    return Case(5 * DAY, 30, start)


@healthy(RUNTIME, "ZGC with ZUncommitDelay: up to its share, down to what lives, JEP 351; devantler-tech/platform#3958")
def zgc_full_teeth(r):
    """Teeth of ten minutes to two hours, from a third to nine tenths of the heap."""
    def start(r):
        heap, week = ZHeap(r, 1200, r.uniform(.7, .9)), Week(r, 1, EVENING, weekend=.9)
        pace = 700 / r.uniform(600, 5000)
        return process(base(r, 150, 60), managed(heap, base(r, 250, 120), lambda t, dt: pace * week.rate(t, dt)), threads=60)
    return Case(1 * DAY, 5, start)


@healthy(RUNTIME, "Classes, compiled code and symbols of a JVM after its start: JDK docs on the code cache and metaspace")
def jvm_warms_for_hours(r):
    """Ever rarer paths are loaded and compiled: quick for minutes, slow for hours."""
    def start(r):
        heap, week, done = G1(r, 500, 500, survive=.01), Week(r, 40), [0.0]

        def code(t, dt, up):
            done[0] += week.rate(t, dt) * dt
            return 190 * (1 - (1 + done[0] / 2500) ** -.42)
        return process(base(r, 70, 20), managed(heap, base(r, 110, 60), lambda t, dt: .2 * week.rate(t, dt)), code, threads=58)
    return Case(2 * DAY, 10, start)


@healthy(RUNTIME, "Mark-compact with a trigger by the live set: V8's blog on its collector")
def node_api(r):
    """Scavenges of megabytes, sweeps of a hundred, and a day on top."""
    def start(r):
        heap, week, flight = V8(r, 700), Week(r, 60, EVENING, weekend=1.1), Pool(1.1, idle=200)

        def live(t, dt, up):
            return 70 * warm(up, 60) + flight.step(week.rate(t, dt), dt)
        return process(base(r, 50), managed(heap, live, lambda t, dt: .08 * week.rate(t, dt)), threads=11)
    return Case(2 * DAY, 10, start)


@healthy(RUNTIME, "pymalloc's arenas and data frames that come and go: CPython docs on memory management")
def data_frames(r):
    """Each job needs another size; what it leaves in holes is used by the next."""
    def start(r):
        heap, frames = PyArenas(r.uniform(.2, .5), 2 * H), Visits(r, lambda r: min(260, lognormal(r, 70, .8)),
                                                                 lambda r: r.expovariate(1 / 200), rate=8, most=3)
        jobs = Clock(r, r.uniform(200, 700))
        return process(base(r, 110), lambda t, dt, up: heap.step(frames.step(t, jobs.ticks(t)), dt), threads=9)
    return Case(1 * DAY, 5, start)


@healthy(RUNTIME, "Puma workers grow by the logarithm of their requests and are rolled at night: puma_worker_killer's README")
def puma_rolled_nightly(r):
    """Four workers, each restarted by a timer every six hours; the master stays."""
    def start(r):
        week, served, due = Week(r, 6), [0.0] * 4, [6 * H * (.5 + i / 8) for i in range(4)]

        def workers(t, dt, up):
            calls = week.calls(t, dt) / 4
            for i in range(4):
                served[i] += calls * r.uniform(.7, 1.3)
                if t >= due[i]:
                    served[i], due[i] = 0.0, due[i] + 6 * H
            return sum([85 + 60 * (1 - (1 + n / 600) ** -.5) for n in served]) * warm(up, 25)
        return process(base(r, 90), workers, threads=26)
    return Case(2 * DAY, 10, start)


@healthy(RUNTIME, "A process with its own heap for each user, tables of presence: Erlang efficiency guide")
def beam_chat(r):
    """Evening after evening of connections; heaps grow by Fibonacci steps and go with their process."""
    sizes = (.03, .05, .08, .13, .21, .34, .55)

    def start(r):
        week = Week(r, .5, EVENING, weekend=1.25)
        users = Visits(r, lambda r: sizes[min(6, int(r.expovariate(.6)))], lambda r: lognormal(r, 1500, 1.1))
        return process(base(r, 120), lambda t, dt, up: users.step(t, week.calls(t, dt)), threads=22)
    return Case(5 * DAY, 30, start)


@healthy(RUNTIME, "Per-thread arenas of a service with bursts, capped by MALLOC_ARENA_MAX: mallopt(3), samsoir/xearthlayer#227's remedy")
def arenas_capped(r):
    """Four arenas, each at times held up by a block at its top."""
    def start(r):
        heaps, week = ThreadHeaps(r, r.choice([4, 8]), 18, .6, sits=.03, lives=1800), Week(r, .5, OFFICE)
        return process(base(r, 100), lambda t, dt, up: min(420, heaps.step(t, week.calls(t, dt), dt)), threads=40)
    return Case(1 * DAY, 5, start)


@healthy(STORE, "memcached -m: pages to classes until the cap, then eviction; its docs say to leave room above")
def memcached_to_its_cap(r):
    """Hours to days of a line, by the rate of new keys, which the day bends; then flat at 62 to 74 % of the container."""
    limit = r.choice([512, 1024])
    most, hours = r.uniform(.6, .7) * limit, r.uniform(5, 26)

    def start(r):
        slabs, week = Slabs(r, most, .004), Week(r, most / .004 / hours / H * 2, EVENING, weekend=1.0)
        return process(base(r, .04 * limit), lambda t, dt, up: slabs.step(week.calls(t, dt)), threads=10)
    return Case(2 * DAY, 10, start, limit)


@healthy(STORE, "Copy-on-write while Redis saves, maxmemory with eviction: Redis docs on persistence, the 45 % rule")
def redis_saves(r):
    """Every quarter of an hour some pages are there twice; the dataset stands at its maximum."""
    limit = r.choice([1024, 2048])

    def start(r):
        every = r.choice([300, 900, 3600])
        save, week, data = ForkedSave(every, r.uniform(30, 100)), Week(r, 1, EVENING, weekend=1.0), r.uniform(.42, .55) * limit
        return process(base(r, data, 40), lambda t, dt, up: save.step(t, data, .0035 * limit * week.rate(t, dt)), threads=6)
    return Case(1 * DAY, 5, start, limit)


@healthy(STORE, "shared_buffers touched once, backends that learn the catalogue and are replaced: PostgreSQL docs, PgBouncer server_lifetime")
def postgres_with_a_pool(r):
    """A quarter of the container fills over the morning; sorts come and go; page cache takes the rest."""
    limit = r.choice([1024, 2048, 4096])

    def start(r):
        pool, sorts = Backends(r, 24, H, .002 * limit, .009 * limit), Visits(r, lambda r: lognormal(r, .012 * limit, .9),
                                                                            lambda r: r.expovariate(1 / 12), most=6)
        week, read, fill = Week(r, .2), [0.0], r.uniform(.6, 3) * H

        def shared(t, dt, up):
            read[0] += week.rate(t, dt) * dt / .1
            return .25 * limit * warm(read[0], fill)
        return process(base(r, .04 * limit), shared, lambda t, dt, up: min(.16 * limit, sorts.step(t, week.calls(t, dt))),
                       lambda t, dt, up: pool.step(up), cache=lambda t, dt, up: limit * min(1, up / fill / 2), threads=31)
    return Case(2 * DAY, 10, start, limit)


@healthy(STORE, "The head block is cut every two hours, and read again after a restart: Prometheus docs on storage, prometheus/prometheus#6934")
def prometheus_head(r):
    """Teeth of two hours; a rollout of the neighbours doubles their series until the next cut."""
    def start(r):
        head, series, rollout = HeadBlock(r.random() * 2 * H, 55, 32), Drift(r, .01, 2 * H), Outages(r, 14 * H, 1800, 5400)
        extra, heap = [0.0], GoPacer(r, 40, scavenge=.15)

        def live(t, dt, up):
            extra[0] += ((.25 if rollout.now(t) else 0) - extra[0]) * (1 - 2.718 ** (-dt / 1500))
            return head.step(t, 1 + series.step(dt) + extra[0], dt) * warm(up, 90)
        return process(base(r, 30), managed(heap, live, 3))
    return Case(2 * DAY, 10, start, restarts=[r.uniform(20, 40) * H])


@healthy(STORE, "Fixed heap, mapped segments: a working set at the limit, starkware-libs/sequencer#14064, kubernetes/kubernetes#43916")
def search_on_page_cache(r):
    """Unreclaimable memory at 55 %, everything else of the container is page cache."""
    limit = r.choice([2048, 4096])

    def start(r):
        heap, week, merges = G1(r, .42 * limit, .42 * limit, survive=.03), Week(r, 1, EVENING), Outages(r, 2 * H, 60, 600)
        near = [0.0]

        def merge(t, dt, up):
            near[0] += ((.05 * limit if merges.now(t) else 0) - near[0]) * (1 - 2.718 ** (-dt / 20))
            return near[0]
        return process(base(r, .1 * limit, 60), managed(heap, base(r, .14 * limit, 60), lambda t, dt: .004 * limit * week.rate(t, dt)),
                       merge, cache=lambda t, dt, up: limit * min(1, up / (2 * H)), threads=85)
    return Case(2 * DAY, 10, start, limit)


@healthy(STORE, "Memtables, flushes, a block cache with a cap, readers of compactions: RocksDB wiki on memory use")
def lsm_under_a_day(r):
    """Teeth of minutes, faster by day, over a cache that fills once."""
    def start(r):
        store, week = Lsm(r, r.choice([32, 64]), r.uniform(150, 320)), Week(r, 1, COMMUTE, weekend=.7)
        return process(base(r, 70), lambda t, dt, up: store.step(.12 * week.rate(t, dt) * dt, .03 * week.rate(t, dt) * dt, dt),
                       cache=lambda t, dt, up: 200 * min(1, up / 9000), threads=33)
    return Case(1 * DAY, 5, start)


@healthy(STORE, "A cache bounded by its number of entries, whose sizes have a heavy tail: golang-lru's README")
def lru_by_count(r):
    """Fills once, at a pace that falls as keys repeat, then wanders with what its entries weigh."""
    def start(r):
        most = r.randint(1500, 4000)
        cache, week = Entries(r, 220 / most, 1.5, most=most), Week(r, most / r.uniform(6, 30) / H, EVENING)
        return process(base(r, 100), lambda t, dt, up: cache.step(t, week.calls(t, dt)))
    return Case(2 * DAY, 10, start)


@healthy(STORE, "Entries that are only freed by a sweeper: go-cache and Guava docs on expiry")
def swept_every_so_often(r):
    """Up between two sweeps, down at each; by night hardly anything comes."""
    def start(r):
        sweep = r.choice([600, 1800, 3600])
        cache, week = Entries(r, .05, 1.1, ttl=sweep * r.uniform(.4, 1.2), sweep=sweep), Week(r, 9000 / sweep)
        heap = GoPacer(r, 50, scavenge=.6)
        return process(base(r, 40), managed(heap, both(base(r, 60), lambda t, dt, up: cache.step(t, week.calls(t, dt))), 2))
    return Case(1 * DAY, 5, start, read=[missed(900, 5, 15)])
