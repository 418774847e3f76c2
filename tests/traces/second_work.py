"""Second book, healthy: calendars, rollouts, batches, tenants, pools, transfers and reloads of processes that are well."""
import math

from book import Case, clock_jump, missed, since, warm
from mechanisms import DAY, H, Backlog, Drift, Job, Outages, Pool
from mechanisms2 import (COMMUTE, EVENING, EVEN, OFFICE, Clock, Entries, Generational, GoPacer, V8, Visits, Week, base, lognormal)
from parts import both, managed, process
from second_pages import healthy

CALENDAR, CHANGE, WORK = "healthy calendar", "healthy change", "healthy transfer"


@healthy(CALENDAR, "Books are closed on the last days of a month: nightly runs of twice the size, coroot/coroot#29 for jobs by the clock")
def month_end(r):
    """Two weeks: a run each night, larger ones on three nights in a row, and back."""
    last = r.uniform(7, 11)

    def start(r):
        job, week, pool, sizes = Job(DAY, r.random() * DAY, r.uniform(1800, 7200), 3600, 120), Week(r, 1), Pool(70, idle=400), {}

        def run(t, dt, up):
            size = sizes.setdefault(job.number(t), (170 if abs(t / DAY - last) < 1.6 else 100) * r.uniform(.9, 1.1))
            return size * job.share(t)
        return process(base(r, 130), lambda t, dt, up: pool.step(week.rate(t, dt), dt), run)
    return Case(14 * DAY, 30, start)


@healthy(CALENDAR, "Windows of an hour are summed and sent: Kafka Streams and Flink docs on tumbling windows")
def hourly_windows(r):
    """Ever fewer new keys within a window; all gone at the hour."""
    def start(r):
        week, width, box = Week(r, 40, EVENING), r.choice([1800, 3600, 7200]), {"n": -1}

        def window(t, dt, up):
            if box["n"] != t // width:
                box.update(n=t // width, seen=0.0)
            box["seen"] += week.calls(t, dt)
            return 260 * (1 - math.exp(-box["seen"] / 60_000))
        heap = GoPacer(r, 50, scavenge=.5)
        return process(base(r, 30), managed(heap, both(base(r, 50), window), 2))
    return Case(2 * DAY, 5, start)


@healthy(CALENDAR, "Sites whose day begins at nine, with sessions that live for half an hour (a general pattern)")
def monday_mornings(r):
    """More than a week: steep mornings, a dip at noon, weekends of nothing."""
    def start(r):
        week = Week(r, .7, OFFICE, weekend=.06)
        sessions = Visits(r, lambda r: lognormal(r, .14, .6), lambda r: r.expovariate(1 / 1800))
        return process(base(r, 90), lambda t, dt, up: sessions.step(t, week.calls(t, dt)), threads=30)
    return Case(8 * DAY, 30, start)


@healthy(CHANGE, "A canary, a rollback, then the rollout, each with its own warm-up: coroot/coroot#893, start-up growth called a leak")
def canary_and_rollout(r):
    """Five starts in a day; the canary has twice the load for half an hour."""
    at = r.uniform(3, 9) * H
    restarts = [at, at + 1800, at + r.uniform(4, 8) * H, at + r.uniform(9, 14) * H]

    def start(r):
        week, flight, heap = Week(r, 60, EVENING, begin=8), Pool(.8, idle=120), GoPacer(r, 100)
        cache = Entries(r, .02, .8, most=4000)

        def live(t, dt, up):
            rate = week.rate(t, dt) * (2 if restarts[0] <= t < restarts[1] else 1)
            return 50 * warm(up, 40) + flight.step(rate, dt) + cache.step(t, min(30, int(rate * dt / 20)))
        return process(base(r, 20), managed(heap, live, 3))
    return Case(1 * DAY, 5, start, restarts=restarts)


@healthy(CHANGE, "The autoscaler adds and removes replicas, and each step moves the load of the rest: coroot/coroot#442")
def replicas_come_and_go(r):
    """Two to six replicas share a day; per pod it is a comb."""
    def start(r):
        week, flight, number, heap = Week(r, 300, EVENING), Pool(1.2, idle=150), [3], GoPacer(r, 60)
        look = Clock(r, 120, spread=False)

        def live(t, dt, up):
            rate = week.rate(t, dt)
            if look.ticks(t):
                number[0] += (rate / number[0] > 55) - (rate / number[0] < 26)
                number[0] = min(8, max(2, number[0]))
            return 45 * warm(up) + flight.step(rate / number[0], dt)
        return process(base(r, 25), managed(heap, live, 2))
    return Case(1 * DAY, 5, start)


@healthy(CHANGE, "Customers are taken on one by one, each with caches and rules: memory beside load, as kumahq/kuma#5227 asks for")
def tenants_taken_on(r):
    """A fifth more memory in ten days, in small stairs of working days; the limit was set with the plan in hand."""
    limit = 1024

    def start(r):
        signed, week, tenants = Week(r, 6 / DAY * 2.4, OFFICE, weekend=0), Week(r, 1), [40]

        def rules(t, dt, up):
            tenants[0] = min(62, tenants[0] + signed.calls(t, dt))
            return tenants[0] * 7.5 * (1 + .1 * week.rate(t, dt))
        return process(base(r, 110), rules)
    return Case(10 * DAY, 30, start, limit)


@healthy(CHANGE, "A new table is built beside the old one and swapped: Envoy docs on xDS, models and GeoIP files alike")
def reload_beside_the_old(r):
    """Each reload takes the table's size again for minutes."""
    def start(r):
        every, build, size, reloads = r.choice([1, 3, 6]) * H, r.uniform(40, 400), r.uniform(110, 200), {}
        offset, week = r.random() * every, Week(r, 40)

        def table(t, dt, up):
            number, s = divmod(t + offset, every)
            new = reloads.setdefault(number, size * r.uniform(.95, 1.05))
            if up <= build:
                return size * min(1, up / build)
            return reloads.get(number - 1, size) * (s < build + 30) + new * min(1, s / build)
        heap = GoPacer(r, 50, scavenge=1)
        return process(base(r, 70), table, managed(heap, base(r, 30), lambda t, dt: .1 * week.rate(t, dt)))
    return Case(1 * DAY, 5, start)


@healthy(CHANGE, "Old workers drain for four minutes at most (worker-shutdown-timeout): kubernetes/ingress-nginx#2461")
def nginx_reloads_with_timeout(r):
    """Reloads come in flocks when the cluster moves; never more than some generations at once."""
    def start(r):
        workers, calm, flock, moves = Generational(60, 120, 240), Clock(r, 2 * H), Clock(r, 70), Outages(r, 5 * H, 300, 1500)
        week, conns = Week(r, 300, COMMUTE), Pool(.25, idle=300)

        def generations(t, dt, up):
            came, moving = flock.ticks(t), moves.now(t)
            for _ in range(calm.ticks(t) + (came if moving else 0)):
                workers.reload(t)
            return workers.step(t)
        return process(base(r, 40), generations, lambda t, dt, up: conns.step(week.rate(t, dt), dt),
                       threads=lambda t, dt, up: 4 * (1 + len(workers.old)))
    return Case(1 * DAY, 5, start)


@healthy(CHANGE, "A pod outgrows its first request, the limit is raised in place, and it goes on as before: Kubernetes in-place pod resize")
def resized_in_time(r):
    """A working set of keys that is seen within two days; at three quarters of the limit it is raised by half."""
    limit, hours = 512, r.uniform(8, 16)

    def start(r):
        week, seen = Week(r, 1, EVEN, weekend=.9), [0.0]

        def keys(t, dt, up):
            seen[0] += week.rate(t, dt) * dt
            return .68 * limit * warm(seen[0], hours * H)
        return process(base(r, .2 * limit), keys)
    return Case(2 * DAY, 10, start, limit, resizes=[(1.8 * hours * H, 1.5)])


@healthy(CHANGE, "A pool opens connections as they are needed, up to maximumPoolSize, and keeps them: HikariCP's README on sizing")
def pool_to_its_cap(r):
    """Each record of concurrency opens some more; none is closed; the cap is where it was set."""
    def start(r):
        most, mib, week, open_ = r.randint(30, 60), r.uniform(1.5, 3), Week(r, 1, OFFICE), [5.0]

        def connections(t, dt, up):
            need = 10 * lognormal(r, .8 * week.rate(t, dt) + .05, .35)
            open_[0] = min(most, max(open_[0], need))
            return int(open_[0]) * mib
        return process(base(r, 140, 40), connections, threads=lambda t, dt, up: 20 + int(open_[0]))
    return Case(2 * DAY, 10, start)


@healthy(WORK, "Bodies buffered whole up to a size that is checked: nginx client_max_body_size, Express docs on limits")
def uploads_buffered(r):
    """Every few minutes tens to a hundred and sixty MiB come in within seconds and go again."""
    def start(r):
        bodies = Visits(r, lambda r: min(160, lognormal(r, 60, .8)), lambda r: r.uniform(1, 8), rate=r.uniform(8, 30), most=3)
        week, heap = Week(r, 1 / 150, OFFICE), V8(r, 500)
        return process(base(r, 60), managed(heap, base(r, 60), 1), lambda t, dt, up: bodies.step(t, week.calls(t, dt)))
    return Case(5 * H, 1, start)


@healthy(WORK, "Archives are unpacked in memory with a cap on what comes out: cortexproject/cortex#7515's remedy")
def archives_with_a_cap(r):
    """Some dozen a day, half of them as large as the cap lets them be."""
    def start(r):
        files = Visits(r, lambda r: min(180, lognormal(r, 120, .9)), lambda r: r.uniform(5, 40), rate=r.uniform(15, 50), most=1)
        clock, week = Clock(r, 1500), Week(r, 20)
        heap = GoPacer(r, 100)
        return process(base(r, 30), managed(heap, base(r, 50), lambda t, dt: .05 * week.rate(t, dt)),
                       lambda t, dt, up: files.step(t, clock.ticks(t)))
    return Case(5 * H, 1, start, read=[missed(250, 5, 15)])


@healthy(WORK, "The consumer stalls for seconds, messages wait, and it catches up: RabbitMQ docs on consumers and prefetch")
def stalls_that_pass(r):
    """Stalls of 15 to 70 seconds; a prefetch bounds what can wait."""
    def start(r):
        week, queue = Week(r, 200, EVENING), Backlog(.02, bound=r.uniform(150, 240))
        stalls = Outages(r, 2400, 15, 70)
        return process(base(r, 110), lambda t, dt, up: queue.step(week.calls(t, dt), 0 if stalls.now(t) else 450 * dt))
    return Case(5 * H, 1, start)


@healthy(WORK, "Retries with a budget: at most a fifth more in flight, gRPC docs on retry throttling, while the far side is slow")
def retries_within_budget(r):
    """The far side answers slowly for minutes: four times as much is in flight, and no more."""
    def start(r):
        week, slow, flight = Week(r, 60, EVENING), Outages(r, 1.5 * H, 120, 900), Pool(1.0, idle=25, most=220)
        factor, heap = [1.0], GoPacer(r, 70, scavenge=.6)

        def live(t, dt, up):
            factor[0] += ((4.2 if slow.now(t) else 1.0) - factor[0]) * (1 - math.exp(-dt / 45))
            return 40 * warm(up) + flight.step(week.rate(t, dt) * factor[0], dt)
        return process(base(r, 22), managed(heap, live, lambda t, dt: .05 * week.rate(t, dt)))
    return Case(6 * H, 1, start)


@healthy(WORK, "Lag after a stop is fetched at full speed, bounded by fetch.max.bytes and max.poll.records: Kafka docs")
def catches_up_after_deploys(r):
    """Every deploy leaves minutes of lag; buffers stand full until it is eaten."""
    every = r.uniform(5, 9) * H

    def start(r):
        lag, week, buffers = [r.uniform(200, 1800)], Week(r, 1, EVENING), [0.0]

        def fetched(t, dt, up):
            rate = week.rate(t, dt)
            lag[0] = max(0.0, lag[0] + (rate - 2.2) * dt)
            want = 190 if lag[0] > 5 else 15 + 30 * rate
            buffers[0] += max(-12 * dt, min(6 * dt, want - buffers[0]))
            return buffers[0] * r.uniform(.94, 1.0)
        return process(base(r, 130, 8), fetched, threads=24)
    return Case(1 * DAY, 5, start, restarts=[every * k for k in range(1, 5)])


@healthy(WORK, "Scratch files in /dev/shm, swept by the hour: Kubernetes docs on emptyDir, PyTorch docs on shared memory")
def scratch_in_shm(r):
    """Files gather for an hour and are swept; some hours bring more."""
    def start(r):
        sweep, files, week = r.choice([1800, 3600]), [0.0, 0], Week(r, 1 / 40, EVENING, weekend=1.0)

        def scratch(t, dt, up):
            if files[1] != t // sweep:
                files[0], files[1] = files[0] * r.uniform(0, .1), t // sweep
            files[0] += sum(lognormal(r, 250 / sweep * 40, .9) for _ in range(week.calls(t, dt)))
            return min(240, files[0])
        return process(base(r, 150), scratch, threads=20)
    return Case(1 * DAY, 5, start)


@healthy(WORK, "One transcode takes a hundred MiB for minutes, two at most at once: FFmpeg docs on threads")
def transcodes(r):
    """Nothing, one or two: levels rather than slopes, for minutes to half an hour."""
    def start(r):
        films = Visits(r, lambda r: r.uniform(70, 130), lambda r: lognormal(r, 500, .7), rate=r.uniform(3, 12), most=2)
        week = Week(r, 1 / 600, EVENING)
        return process(base(r, 80), lambda t, dt, up: films.step(t, week.calls(t, dt)), cache=180,
                       threads=lambda t, dt, up: 6 + 16 * films.number())
    return Case(1 * DAY, 5, start, read=[clock_jump(9 * H, r.uniform(200, 4000))])


@healthy(WORK, "A build agent runs job after job, compilers and linkers of all sizes: page cache full, memory by the job")
def build_agent(r):
    """Each job climbs in its own way to its own height; a link at the end is the highest."""
    def start(r):
        state = {"end": r.uniform(0, 300), "begin": 0, "top": 0.0}
        noise = Drift(r, 6, 8)

        def job(t, dt, up):
            if t >= state["end"]:
                length = lognormal(r, 500, .8)
                state.update(begin=t + r.expovariate(1 / 200), top=min(420, lognormal(r, 190, .6)))
                state["end"] = state["begin"] + min(3000, length)
            x = since(t, state["begin"]) / (state["end"] - state["begin"])
            return max(0.0, state["top"] * (.35 * min(1, 4 * x) + .25 * x + (.4 if x > .85 else 0)) + noise.step(dt)) if x > 0 else 0
        return process(base(r, 60), job, cache=2000, threads=lambda t, dt, up: 10 + int(t) % 7)
    return Case(5 * H, 1, start)
