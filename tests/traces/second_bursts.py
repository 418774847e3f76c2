"""Second book, leaks of seconds and minutes: bodies, queries, queues and stampedes that end at the limit (1 s readings)."""
from book import Case, missed, since
from mechanisms import H, Drift
from mechanisms2 import (EVENING, EVEN, Clock, ForkedSave, GoPacer, PyArenas, V8, Visits, Week, base, lognormal)
from parts import both, managed, piling, process
from second_pages import leak

FAMILY = "burst to the kill"


@leak(FAMILY, "An ORM that materialises a table: rows into a list that is enlarged by an eighth, CPython docs on list growth")
def table_read_whole(r):
    """A report fetches all rows in pages: half a minute to the kill."""
    limit, at = r.choice([384, 768, 1536]), r.uniform(300, 2400)
    seconds, page = r.uniform(30, 55), r.uniform(1, 3)

    def start(r):
        jobs, calls = PyArenas(), Week(r, 20, EVEN)

        def rows(t, dt, up):
            fetched = int(since(t, at) / page) * page / seconds
            return limit * fetched * r.uniform(.985, 1.0)
        return process(base(r, .22 * limit), lambda t, dt, up: jobs.step(.002 * limit * calls.rate(t, dt) / 20, dt), rows)
    return Case(1 * H, 1, start, limit, at)


@leak(FAMILY, "Unbounded gzip of a request body: cortexproject/cortex#7515")
def gzip_bomb(r):
    """Some hundred KB on the wire, inflated at the speed of a core."""
    limit, at = r.choice([256, 512, 1024]), r.uniform(100, 3000)
    rate = limit / r.uniform(11, 28)

    def start(r):
        week, speed = Week(r, 120, EVENING), Drift(r, .12, 4)
        body = piling(lambda t, dt: rate * dt * max(.3, 1 + speed.step(dt)), at)
        live = both(base(r, .1 * limit), body)
        return process(base(r, 18), managed(GoPacer(r), live, lambda t, dt: .02 * week.rate(t, dt)))
    return Case(1 * H, 1, start, limit, at)


@leak(FAMILY, "A message given out again after each death of who read it: RabbitMQ docs on redelivery; a node that dies anew, camunda/camunda#5820")
def query_of_death(r):
    """Three lives; in each the same message is reached a minute or two after the start."""
    limit, first = r.choice([256, 512]), r.uniform(600, 2000)
    again, seconds = [r.uniform(50, 150) for _ in range(4)], r.uniform(14, 30)
    lives = []

    def begin(born):
        return first if born == 0 else born + again[int(born) % 4]

    def start(r):
        at = [first if not lives else None]
        lives.append(1)

        def blast(t, dt, up):
            if at[0] is None:
                at[0] = begin(t - up)
            return limit * (since(t, at[0]) / seconds) ** 1.15 * r.uniform(.97, 1.03)
        return process(base(r, .26 * limit, 6), blast)
    return Case(2 * H, 1, start, limit, begin, kills=3)


@leak(FAMILY, "A queue without a bound whose consumer waits for a lock: fluent/fluent-bit#1768")
def consumer_stalls(r):
    """One to five minutes from the stall to the kill."""
    limit, at, seconds = r.choice([256, 512, 1024]), r.uniform(600, 4000), r.uniform(70, 280)

    def start(r):
        week, held = Week(r, 400, sway=.12, begin=10), Drift(r, .01 * limit, 5)
        mib = limit / seconds / 330
        queue = piling(lambda t, dt: sum(lognormal(r, mib, 1.2) for _ in range(8)) / 8 * week.calls(t, dt), at)
        return process(base(r, .24 * limit), lambda t, dt, up: abs(held.step(dt)), queue)
    return Case(2 * H, 1, start, limit, at)


@leak(FAMILY, "Bodies kept in memory, and a client that sends many at once: multer's README on memoryStorage warns of it")
def uploads_at_once(r):
    """Uploads come one by one for an hour, then a sync client sends its folder."""
    limit, at = r.choice([512, 1024]), r.uniform(1200, 3400)
    gap = r.uniform(1.2, 3)

    def start(r):
        bodies = Visits(r, lambda r: lognormal(r, .055 * limit, .5), lambda r: r.uniform(2, 6), rate=.012 * limit)
        usual, sync = Clock(r, 90), Clock(r, gap, at)
        return process(base(r, .2 * limit), lambda t, dt, up: bodies.step(t, usual.ticks(t) * (t < at) + 3 * sync.ticks(t)))
    return Case(1.5 * H, 1, start, limit, at)


@leak(FAMILY, "A heap snapshot takes as much again as the heap: Node.js docs on v8.writeHeapSnapshot")
def heap_snapshot(r):
    """Somebody asks the process for its heap, in a container with too little room for it."""
    limit, at, seconds = r.choice([512, 1024]), r.uniform(1500, 3500), r.uniform(50, 130)

    def start(r):
        live, nodes = .5 * limit * r.uniform(.95, 1.05), Drift(r, .01 * limit, 3)
        heap, week = V8(r, .9 * limit), Week(r, 60, EVENING)

        def snapshot(t, dt, up):
            return (live * 1.1 * since(t, at) / seconds + nodes.step(dt)) if t >= at else 0
        return process(base(r, 40), managed(heap, base(r, live, 60), lambda t, dt: .05 * week.rate(t, dt)), snapshot)
    return Case(1.5 * H, 1, start, limit, at)


@leak(FAMILY, "Everybody connects at once, as after the switch of names in kubernetes/ingress-nginx#1088")
def reconnect_storm(r):
    """Fast, then slower, as ever fewer are still away; the end of it lies above the limit."""
    limit, at, tau = r.choice([256, 512]), r.uniform(900, 3000), r.uniform(45, 110)

    def start(r):
        drift = Drift(r, .006 * limit, 12)
        usual = .3 * limit
        return process(base(r, usual), lambda t, dt, up: 1.15 * limit * (1 - 2.718 ** (-since(t, at) / tau)) + drift.step(dt),
                       threads=lambda t, dt, up: 9)
    return Case(1.5 * H, 1, start, limit, at)


@leak(FAMILY, "A subscriber that reads too slowly, with no client-output-buffer-limit: Redis docs on clients")
def slow_subscriber(r):
    """A server's output buffer for one client grows for ten minutes; snapshots go on meanwhile."""
    limit, at, seconds = r.choice([512, 1024]), r.uniform(2000, 4500), r.uniform(400, 900)

    def start(r):
        data, save, week = .3 * limit, ForkedSave(300, 25), Week(r, 1, EVENING, sway=.2, begin=18)
        buffer = piling(lambda t, dt: .75 * limit / seconds * week.rate(t, dt) * dt, at)
        return process(base(r, data), lambda t, dt, up: save.step(t, data, .006 * limit), buffer)
    return Case(2.5 * H, 1, start, limit, at, read=[missed(200, 5, 15)])


@leak(FAMILY, "A decoded picture takes width x height x 4 bytes, and a gallery asks for many (a general pattern)")
def thumbnails_in_parallel(r):
    """Steps of a hundred MiB, each held for seconds, come faster than they go."""
    limit, at = r.choice([1024, 2048]), r.uniform(500, 3000)

    def start(r):
        pictures = Visits(r, lambda r: limit * r.uniform(.04, .09), lambda r: r.uniform(20, 50), rate=.08 * limit)
        few, many = Clock(r, 240), Clock(r, r.uniform(1.6, 3), at)
        return process(base(r, .15 * limit), lambda t, dt, up: pictures.step(t, few.ticks(t) * (t < at - 60) + many.ticks(t)))
    return Case(1.5 * H, 1, start, limit, at)
