"""First book, healthy: what runtimes do, caches, load, and work by the clock."""
import math

from book import Case, since, warm
from mechanisms import (DAY, H, Arenas, Backlog, Cache, Counted, Drift, Generations, GoHeap, Job, Load, Outages, Pool)
from parts import both, collected, counted, drifting, fixed, pooled, process, requested, warming
from shapes_pages import shape

RUNTIME, CACHE, LOAD, WORK = "healthy runtime", "healthy cache", "healthy load", "healthy work"


def often(every, most):
    return [every * k for k in range(1, most)]


@shape(RUNTIME)
def go_by_day(r):
    """GOGC=100 under a day curve: live heap by load, and twice of it resident."""
    def start(r):
        load, heap = Load(r, 200, quiet=.2, weekend=.6), GoHeap()

        def by_load(t, dt, up):
            now = load.rate(t, dt)
            return heap.step(40 * warm(up) + .4 * now, now * .03 * dt, dt)
        return process(fixed(25), by_load)
    return Case(5 * DAY, 10, start)


@shape(RUNTIME)
def jvm_touches_its_heap(r):
    """Regions are touched one after the other until the maximum heap, sized as share of the container, is resident."""
    limit = r.choice([1024, 2048])

    def start(r):
        heap, load = Generations(r, r.uniform(.55, .75) * limit, promote=r.uniform(.01, .1)), Load(r, 50, quiet=.4)
        live = warming(r.uniform(.12, .3) * limit, 300)
        return process(warming(.1 * limit, 120), collected(heap, live, lambda t, dt: load.rate(t, dt) * .05))
    return Case(4 * DAY, 10, start, limit)


@shape(RUNTIME)
def jvm_gives_back(r):
    """Old generation fills for hours, a collection returns it."""
    def start(r):
        heap = Generations(r, 900, threshold=r.uniform(.5, .7), promote=r.uniform(.02, .08), uncommit=True)
        load = Load(r, 50, quiet=.5)
        return process(warming(90, 60), collected(heap, warming(180, 300), lambda t, dt: load.rate(t, dt) * .05))
    return Case(1 * DAY, 1, start)


@shape(RUNTIME)
def python_workers(r):
    """Eight workers of a preforking server: each creeps and is replaced after so many requests."""
    def start(r):
        load, most = Load(r, 40, quiet=.4), r.uniform(8_000, 40_000)
        done = [r.random() * most for _ in range(8)]
        grow = r.uniform(20, 60) / most

        def workers(t, dt, up):
            n = load.requests(t, dt) / 8
            for i in range(8):
                done[i] = done[i] + n * r.uniform(.8, 1.2)
                if done[i] > most:
                    done[i] = 0.0
            return sum(30 + grow * d for d in done) * warm(up, 20)
        return process(fixed(60), workers)
    return Case(1 * DAY, 1, start)


@shape(RUNTIME)
def refcount_high_water(r):
    """Size classes peak at different times and keep what they had: creep that grows rarer."""
    def start(r):
        heap, load = Counted(r, classes=16, spread=.4, tau=1800), Load(r, 1, quiet=.5)
        return process(fixed(40), counted(heap, lambda t, dt, up: 120 * warm(up, 20) * (.4 + .6 * load.rate(t, dt))))
    return Case(4 * DAY, 10, start)


@shape(RUNTIME)
def soft_limit_reached(r):
    """GOGC=off with a soft limit: the heap fills to it and stays, by design."""
    limit = r.choice([256, 512])

    def start(r):
        heap, load = GoHeap(5000, r.uniform(.7, .9) * limit), Load(r, 1, quiet=.4)
        rate = r.uniform(.2, 3)
        return process(fixed(10), collected(heap, warming(.2 * limit), lambda t, dt: rate * load.rate(t, dt)))
    return Case(2 * DAY, 5, start, limit)


@shape(RUNTIME)
def thread_arenas(r):
    """A heap for each of the threads, as large as the largest request it ever served."""
    def start(r):
        arenas, load = Arenas(r, r.randint(16, 64), .3, 12), Load(r, r.uniform(.02, .5), quiet=.3)
        return process(warming(50), lambda t, dt, up: arenas.step(load.requests(t, dt)))
    return Case(3 * DAY, 10, start)


@shape(CACHE)
def cache_of_popular_keys(r):
    """No bound but the number of keys: fast at first, ever slower."""
    def start(r):
        cache, load = Cache(r.choice([50_000, 200_000]), .002, zipf=r.uniform(.7, 1.1)), Load(r, r.uniform(5, 60), quiet=.3)
        return process(warming(60), requested(cache, load))
    return Case(4 * DAY, 10, start)


@shape(CACHE)
def cache_to_capacity(r):
    """Filled at the pace of the load, then evicts: nearly a line until it stops."""
    def start(r):
        cache, load = Cache(5_000_000, .002, zipf=.5, capacity=r.uniform(100, 300)), Load(r, r.uniform(4, 20), quiet=.4)
        return process(warming(120), requested(cache, load))
    return Case(2 * DAY, 5, start)


@shape(CACHE)
def cache_with_expiry(r):
    """Entries live for an hour or for minutes: the cache follows the load."""
    def start(r):
        cache = Cache(400_000, .003, zipf=.8, ttl=r.choice([600, 3600, 4 * H]))
        load = Load(r, r.uniform(20, 60), quiet=.15, weekend=.5)
        return process(warming(70), requested(cache, load))
    return Case(5 * DAY, 10, start)


@shape(CACHE)
def store_with_memtables(r):
    """A log-structured store: tables fill and are flushed, blocks are cached, compaction takes a share now and then."""
    def start(r):
        table, load = r.choice([32, 64]), Load(r, 1, quiet=.3)
        cache, busy = Cache(300_000, .0012, zipf=.8, capacity=r.uniform(80, 200)), Outages(r, 3 * H, 60, 400)
        fill, pool = [0.0], Pool(60, idle=40)

        def tables(t, dt, up):
            now = load.rate(t, dt)
            fill[0] = (fill[0] + .05 * now * dt) % table
            return 60 + fill[0] + cache.step(20 * now * dt, dt)
        return process(tables, lambda t, dt, up: pool.step(1.0 if busy.now(t) else 0.0, dt))
    return Case(1 * DAY, 1, start)


@shape(CACHE)
def daily_refill(r):
    """Built anew every night: down to nothing, and up over the morning."""
    def start(r):
        hour, load, box = r.uniform(1, 5) * H, Load(r, r.uniform(10, 40), quiet=.1, phase=.1), {}

        def rebuilt(t, dt, up):
            day = int((t - hour) // DAY)
            if box.get("day") != day:
                box.update(day=day, cache=Cache(100_000, .0025, zipf=.7))
            return box["cache"].step(load.requests(t, dt), dt)
        return process(warming(90), rebuilt)
    return Case(5 * DAY, 10, start)


@shape(CACHE)
def interned_names(r):
    """A table of strings, classes, compiled expressions: grows with what is new, and little is new after the first day."""
    def start(r):
        load, cache = Load(r, 10, quiet=.3), Cache(1_500_000, .0002, zipf=1.05)
        return process(fixed(20), collected(GoHeap(), both(warming(40), requested(cache, load)), 1))
    return Case(7 * DAY, 30, start)


@shape(LOAD)
def week_of_sessions(r):
    """Memory by open sessions: days, and a weekend after which Monday looks like a leak."""
    def start(r):
        load = Load(r, r.uniform(300, 900), quiet=.1, weekend=.35, sharp=r.uniform(1, 2))
        return process(warming(80), pooled(Pool(.4, idle=900), load))
    return Case(14 * DAY, 30, start)


@shape(LOAD)
def flash_crowds(r):
    """Now and then ten minutes of three times the load."""
    def start(r):
        load, pool, crowd = Load(r, 100, quiet=.4), Pool(.5, idle=200), Outages(r, 5 * H, 300, 1500)
        size = [0.0]

        def conns(t, dt, up):
            size[0] += ((2.0 if crowd.now(t) else 0.0) - size[0]) * (1 - math.exp(-dt / 90))
            return pool.step(load.rate(t, dt) * (1 + size[0]), dt)
        return process(fixed(40), collected(GoHeap(), both(warming(60), conns), 5))
    return Case(1 * DAY, 1, start)


@shape(LOAD)
def neighbours_die(r):
    """Other replicas go and come: the load here is half as high again for an hour."""
    def start(r):
        load, gone = Load(r, 100, quiet=.3), Outages(r, 8 * H, 600, 5400)
        return process(warming(90), pooled(Pool(.8, idle=300), load, lambda t: 1.5 if gone.now(t) else 1.0))
    return Case(4 * DAY, 10, start)


@shape(LOAD)
def queue_through_outages(r):
    """What cannot be delivered waits, up to a bound, and goes out when the other side is back."""
    def start(r):
        load, queue, gone = Load(r, 100, quiet=.4), Backlog(.004, bound=r.uniform(120, 260)), Outages(r, 9 * H, 200, 2400)
        return process(warming(120), lambda t, dt, up: queue.step(load.requests(t, dt), 0 if gone.now(t) else 300 * dt))
    return Case(1.5 * DAY, 1, start)


@shape(LOAD)
def buffers_by_largest_request(r):
    """Each of the workers keeps a buffer as large as its largest request, up to the largest that is allowed."""
    def start(r):
        workers, load = Arenas(r, r.randint(8, 32), .2, 8), Load(r, r.uniform(.05, 1), quiet=.3)
        return process(warming(70), lambda t, dt, up: workers.step(load.requests(t, dt)), pooled(Pool(.2, idle=300), load, lambda t: 40))
    return Case(4 * DAY, 10, start)


@shape(LOAD)
def business_that_grows(r):
    """Two percent more load each day for two weeks."""
    def start(r):
        conns = pooled(Pool(.3, idle=300), Load(r, 200, quiet=.2), lambda t: 1.02 ** (t / DAY))
        return process(fixed(30), collected(GoHeap(), both(warming(30), conns), 3))
    return Case(14 * DAY, 30, start)


@shape(WORK)
def hourly_report(r):
    """Data is read for minutes, worked on, freed; some hours bring more of it."""
    def start(r):
        job, size, seen = Job(H, r.random() * H, r.uniform(120, 500), 300), [150.0], [-1]

        def report(t, dt, up):
            if seen[0] != job.number(t):
                seen[0], size[0] = job.number(t), 150 * r.uniform(.5, 1.3)
            return size[0] * job.share(t)
        return process(fixed(60), collected(GoHeap(), warming(50), 2), report)
    return Case(1 * DAY, 1, start)


@shape(WORK)
def nightly_export(r):
    """A climb of an hour once a night, to twice the memory."""
    def start(r):
        job, load = Job(DAY, r.random() * DAY, r.uniform(1200, 6000), 1800), Load(r, 1, quiet=.3)
        return process(warming(100), pooled(Pool(60, idle=300), load), lambda t, dt, up: 140 * job.share(t))
    return Case(6 * DAY, 10, start)


@shape(WORK)
def training_rounds(r):
    """Rounds of half an hour: memory grows through each and is freed at its end; every tenth round is larger."""
    def start(r):
        every, drift, bend = r.uniform(900, 3600), drifting(r, 2, 60), r.choice([.5, 1.0])

        def rounds(t, dt, up):
            k, s = divmod(up, every)
            return (170 if int(k) % 10 == 9 else 130) * (s / every) ** bend
        return process(warming(130), rounds, drift)
    return Case(1 * DAY, 1, start)


@shape(WORK)
def data_loaded_at_start(r):
    """A snapshot is read for minutes after each start; a deploy every few hours."""
    def start(r):
        seconds, size, drift = r.uniform(60, 900), r.uniform(180, 240), drifting(r, 1.5, 60)
        return process(fixed(20), lambda t, dt, up: size * min(1, up / seconds), drift)
    return Case(1 * DAY, 1, start, restarts=often(r.uniform(5, 12) * H, 10))


@shape(WORK)
def models_on_first_use(r):
    """Each model is loaded when it is first asked for, and kept."""
    def start(r):
        models = [r.uniform(10, 40) for _ in range(r.randint(5, 12))]
        due, drift = [r.expovariate(1 / (3 * H)) for _ in models], drifting(r, 2, 120)
        return process(warming(120), lambda t, dt, up: sum(m * min(1, since(up, d) / 20) for m, d in zip(models, due)), drift)
    return Case(3 * DAY, 5, start)


@shape(WORK)
def deploys_of_a_busy_team(r):
    """A new release every few hours, warm within minutes, a little larger or smaller than the last."""
    def start(r):
        base, heap, load = r.uniform(60, 110), GoHeap(), Load(r, 100, quiet=.4)
        cache = Cache(20_000, .002, zipf=.9)

        def release(t, dt, up):
            n = load.requests(t, dt)
            return heap.step(base * warm(up, 40) + cache.step(n, dt), n * .05, dt)
        return process(fixed(20), release)
    return Case(1 * DAY, 1, start, restarts=often(r.uniform(2, 6) * H, 13))


@shape(WORK)
def mapped_files(r):
    """Files are mapped and read: the working set grows to the limit, what cannot be reclaimed does not."""
    limit = r.choice([512, 1024])

    def start(r):
        drift, fill = drifting(r, .01 * limit, 300), r.uniform(1, 8) * H
        return process(warming(.35 * limit), drift, cache=lambda t, dt, up: .6 * limit * min(1, up / fill))
    return Case(3 * DAY, 10, start, limit)


@shape(WORK)
def ring_touched_once(r):
    """A trace ring of fixed size is written through for the first time, then over and over."""
    def start(r):
        fill, size, load, done = r.uniform(.5, 6) * H, r.uniform(60, 160), Load(r, 1, quiet=.5), [0.0]

        def ring(t, dt, up):
            done[0] += load.rate(t, dt) * dt
            return size * min(1, done[0] / fill)
        return process(warming(130), ring)
    return Case(2 * DAY, 5, start)
