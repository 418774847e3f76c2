"""Second book, leaks that follow the work: errors, connections, tenants, deploys of others, timers, children, files in memory."""
from book import Case, clock_jump, missed, since
from mechanisms import DAY, H, Arenas, Drift, Outages, Pool
from mechanisms2 import (COMMUTE, EVENING, EVEN, NONE_BY_NIGHT, OFFICE, Clock, Doubling, Entries, GoPacer, PyArenas, ThreadHeaps,
                         V8, Visits, Week, base, lognormal)
from parts import both, managed, piling, process
from second_pages import leak

FAMILY = "leak by what happens"


@leak(FAMILY, "Clients made on a path that only failures take: DataDog/java-dogstatsd-client#197, with few failures")
def error_path_leak(r):
    """Errors are rare, come in spells, and each leaves a client and its thread behind."""
    limit, at = r.choice([256, 512]), r.uniform(1, 4) * H
    mib = limit * r.uniform(.0012, .003)

    def start(r):
        week, bad, lost = Week(r, 1, weekend=.5), Outages(r, 2.5 * H, 90, 1500), [0]
        heap = GoPacer(r)

        def clients(t, dt, up):
            rate = .001 * week.rate(t, dt) + (.03 if bad.now(t) else 0)
            lost[0] += sum(r.random() < rate for _ in range(int(dt))) if t >= at else 0
            return lost[0] * mib
        return process(base(r, 20), managed(heap, both(base(r, .13 * limit), clients), 1.5), threads=lambda t, dt, up: 14 + lost[0])
    return Case(8 * DAY, 5, start, limit, at)


@leak(FAMILY, "State per connection that its end does not free; people connect on their way: DataDog/datadog-go#267 by connection")
def commuters_leak(r):
    """The leak follows new connections, which peak twice a day."""
    limit, at = r.choice([512, 1024]), r.uniform(1, 10) * H
    per_day = limit * r.uniform(.3, .6)

    def start(r):
        opened, pool = Week(r, 2, COMMUTE), Pool(.06 * limit / 60, idle=900)
        live = both(lambda t, dt, up: pool.step(30 * opened.rate(t, dt), dt), base(r, .15 * limit),
                    piling(lambda t, dt: per_day / 80_000 * opened.calls(t, dt), at))
        return process(base(r, 22), managed(GoPacer(r, 75), live, lambda t, dt: .8 * opened.rate(t, dt)))
    return Case(9 * DAY, 10, start, limit, at)


@leak(FAMILY, "Timers that nobody stops and that fire a day later: hashicorp/vault#14814")
def timers_of_a_day(r):
    """Each call arms one; the first are freed after the kill. The clock is set forward once."""
    limit, at, hours = r.choice([256, 512]), r.uniform(.3, 1.5) * H, r.uniform(3, 9)

    def start(r):
        week = Week(r, 50, EVEN, weekend=.9, sway=.1)
        live = both(base(r, .1 * limit), piling(lambda t, dt: .42 * limit / hours / H / 50 * week.calls(t, dt), at))
        return process(base(r, 24), managed(GoPacer(r), live, 3))
    return Case(1 * DAY, 5, start, limit, at, read=[clock_jump(r.uniform(1.5, 4) * H, r.uniform(300, 5000))])


@leak(FAMILY, "Event listeners added per session and never removed (MaxListenersExceededWarning), Node.js docs on events")
def listeners_fan_out(r):
    """Each listener is called for each event and keeps what it saw: the more there are, the faster it goes."""
    limit, at, tau = r.choice([512, 1024]), r.uniform(.5, 2) * H, r.uniform(1.2, 3) * H

    def start(r):
        heap, week = V8(r, 1.4 * limit), Week(r, 40, EVENING, weekend=1.1, begin=r.uniform(30, 38))
        seen = piling(lambda t, dt: .1 * limit / tau * (.4 + 1.2 * since(t, at) / tau) * week.rate(t, dt) / 25 * dt, at)
        return process(base(r, 45), managed(heap, both(base(r, .12 * limit), seen), lambda t, dt: .25 * week.rate(t, dt)))
    return Case(2 * DAY, 5, start, limit, at)


@leak(FAMILY, "Connections to endpoints that are gone stay in a client's table: cortexproject/cortex#3314, grpc/grpc-java#1342")
def upstream_deploys(r):
    """Every deploy of a dependency leaves its old clients; teams deploy in working hours. Days to the kill."""
    limit, at = r.choice([256, 512]), r.uniform(5, 20) * H
    step = limit * r.uniform(.012, .028)

    def start(r):
        deploys = Week(r, 12 / DAY * 2.6, NONE_BY_NIGHT, weekend=.02)
        live = both(base(r, .2 * limit), piling(lambda t, dt: step * r.uniform(.6, 1.4) * deploys.calls(t, dt), at))
        return process(base(r, 20), managed(GoPacer(r, 50), live, 1))
    return Case(40 * DAY, 30, start, limit, at)


@leak(FAMILY, "A poller per tenant that keeps its last answers; the number of tenants grows (a general pattern)")
def pollers_per_tenant(r):
    """The rate of the leak goes with the tenants, and these come every few hours."""
    limit, at = r.choice([512, 1024]), r.uniform(2, 10) * H
    rate, first = limit / r.uniform(700, 1500) / H, r.randint(4, 10)

    def start(r):
        tenants, signed, heap = [first], Week(r, 10 / DAY * 2.2, OFFICE, weekend=.1), PyArenas()

        def kept(t, dt):
            tenants[0] += signed.calls(t, dt)
            return rate * tenants[0] * dt * r.uniform(.5, 1.5)
        return process(base(r, 60), lambda t, dt, up: heap.step(.18 * limit * (1 + .1 * r.random()), dt), piling(kept, at))
    return Case(20 * DAY, 30, start, limit, at)


@leak(FAMILY, "A leak per request on a site that is closed by night: coroot/coroot#221, slow leaks that an hour's window misses")
def closed_by_night(r):
    """Grows from seven to six on working days and stands else; about a week to the kill."""
    limit, at = r.choice([512, 1024, 2048]), r.uniform(3, 30) * H
    per_day = limit * r.uniform(.11, .17)

    def start(r):
        week = Week(r, 10, NONE_BY_NIGHT, weekend=0)
        live = both(base(r, .22 * limit), piling(lambda t, dt: per_day / 295_000 * week.calls(t, dt), at))
        return process(base(r, .05 * limit), managed(GoPacer(r, 40), live, lambda t, dt: .1 + .3 * week.rate(t, dt)))
    return Case(30 * DAY, 30, start, limit, at)


@leak(FAMILY, "A map that is only ever added to: its table doubles, with the old one beside the new (hashbrown and Java docs on resizing)")
def map_that_doubles(r):
    """A line of entries and stairs of tables; the last stair can be the end."""
    limit, at, hours = r.choice([512, 1024]), r.uniform(.5, 2) * H, r.uniform(7, 20)
    entry = .00035

    def start(r):
        week, table, count = Week(r, .6 * limit / entry / hours / H, EVEN, weekend=.8, sway=.1), Doubling(.00012), [0]

        def entries(t, dt, up):
            count[0] += week.calls(t, dt) if t >= at else 0
            return count[0] * entry + table.step(count[0], dt)
        return process(base(r, .16 * limit), entries)
    return Case(4 * DAY, 5, start, limit, at)


@leak(FAMILY, "A parent keeps a segment of each worker it recycles: gunicorn and uWSGI docs on max-requests")
def recycled_children(r):
    """Workers creep and are replaced, which looks healthy; what the parent keeps of each does not go."""
    limit, at, kept = r.choice([512, 1024]), r.uniform(.5, 3) * H, r.uniform(.006, .012)

    def start(r):
        most, week = r.uniform(3000, 6000), Week(r, 12, EVENING, weekend=1.0)
        done, gone = [r.random() * most for _ in range(6)], [0]

        def workers(t, dt, up):
            served = week.calls(t, dt) / 6
            for i in range(6):
                done[i] += served * r.uniform(.7, 1.3)
                if done[i] >= most:
                    done[i], gone[0] = 0.0, gone[0] + (t >= at)
            return sum([.045 * limit * (1 + .55 * d / most) for d in done]) + gone[0] * kept * limit
        return process(base(r, .06 * limit), workers, threads=30)
    return Case(6 * DAY, 5, start, limit, at)


@leak(FAMILY, "Temporary files in an emptyDir of medium Memory count against the container: Kubernetes docs on volumes")
def leftovers_in_tmpfs(r):
    """Some of the jobs leave their files; nobody sweeps. No process grows."""
    limit, at = r.choice([512, 1024]), r.uniform(1, 4) * H
    gap = r.uniform(300, 900)

    def start(r):
        jobs = Visits(r, lambda r: lognormal(r, .03 * limit, .7), lambda r: r.uniform(20, 90), most=4)
        clock, lost = Clock(r, gap), [0.0]

        def files(t, dt, up):
            came = clock.ticks(t)
            lost[0] += sum(lognormal(r, .018 * limit, .8) for _ in range(came) if r.random() < .55) if t >= at else 0
            return jobs.step(t, came) + lost[0]
        return process(base(r, .22 * limit), files)
    return Case(4 * DAY, 5, start, limit, at)


@leak(FAMILY, "Browser pages that are not closed, renderers that stay: puppeteer/puppeteer#5893")
def pages_left_open(r):
    """One render in thirty leaves its renderer, with all of its threads."""
    limit, at = r.choice([1024, 2048]), r.uniform(.5, 2) * H
    every = r.uniform(20, 60)

    def start(r):
        renders = Visits(r, lambda r: lognormal(r, .03 * limit, .4), lambda r: r.uniform(4, 15), rate=.03 * limit, most=6)
        clock, left, held = Clock(r, every), [0], [0.0]

        def browser(t, dt, up):
            came = clock.ticks(t)
            for _ in range(came):
                if t >= at and r.random() < 1 / 30:
                    left[0], held[0] = left[0] + 1, held[0] + lognormal(r, .022 * limit, .3)
            return renders.step(t, came) + held[0]
        return process(base(r, .2 * limit), browser, threads=lambda t, dt, up: 34 + 11 * (left[0] + renders.number()))
    return Case(4 * DAY, 5, start, limit, at, read=[missed(400, 5, 15)])


@leak(FAMILY, "Sockets behind a balancer that drops them silently, a thread for each: no keepalive, tcp(7)")
def half_open_sockets(r):
    """Threads and their stacks pile up as clients vanish without a word."""
    limit, at = r.choice([256, 512]), r.uniform(.5, 2) * H
    mib, hours = r.uniform(.2, .5), r.uniform(3, 10)

    def start(r):
        week, count, buffers = Week(r, limit * .7 / mib / hours / H, EVENING, weekend=1.0, begin=17), [0], Arenas(r, 12, .3, 3)

        def sockets(t, dt, up):
            count[0] += week.calls(t, dt) if t >= at else 0
            return count[0] * mib + buffers.step(2)
        return process(base(r, .14 * limit), sockets, threads=lambda t, dt, up: 24 + count[0])
    return Case(4 * DAY, 5, start, limit, at)


@leak(FAMILY, "Messages grow with a schema, and no hole left by a small one holds a larger one: samsoir/xearthlayer#227")
def holes_too_small(r):
    """Heaps per thread whose tops are held for long, under messages that get larger over two days."""
    limit, at = r.choice([512, 1024]), r.uniform(2, 8) * H
    days = r.uniform(1, 2.2)

    def start(r):
        week, heaps, drift = Week(r, .4, EVENING), ThreadHeaps(r, 24, .006 * limit), Drift(r, .004 * limit, 600)
        lost = piling(lambda t, dt: .55 * limit / days / DAY / .2 * week.rate(t, dt) * dt, at)
        return process(base(r, .14 * limit), lambda t, dt, up: heaps.step(t, week.calls(t, dt), dt) + drift.step(dt), lost)
    return Case(9 * DAY, 10, start, limit, at)


@leak(FAMILY, "A leak beside a cache whose entries live for an hour: it shows in the nights (a general pattern)")
def leak_beside_expiry(r):
    """The cache breathes with the day by ten times what the leak takes in it."""
    limit, at = r.choice([1024, 2048]), r.uniform(4, 30) * H
    per_day = limit * r.uniform(.07, .12)

    def start(r):
        week = Week(r, 1.5, EVENING)
        cache = Entries(r, .24 * limit / 5000, 1.2, ttl=H, sweep=60)
        return process(base(r, .2 * limit), lambda t, dt, up: cache.step(t, week.calls(t, dt)),
                       piling(lambda t, dt: per_day / 65_000 * week.rate(t, dt) * dt, at))
    return Case(20 * DAY, 30, start, limit, at)
