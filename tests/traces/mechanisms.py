"""Where memory goes in a process: loads, collectors, allocators, caches, pools. MiB and seconds (stdlib only).

Each class models a mechanism and not a curve: what comes out is what the mechanism does under its load. All state belongs to
one life of a process; a restart builds everything anew. `shapes.py` composes them.
"""
import math

DAY = 86400.0
H = 3600.0


class Drift:
    """A mean-reverting walk (Ornstein-Uhlenbeck) around zero: sd, and correlation time in seconds."""

    def __init__(self, r, sd, tau):
        self.r, self.sd, self.tau, self.x = r, sd, tau, sd * r.gauss(0, 1)

    def step(self, dt):
        keep = math.exp(-dt / self.tau)
        self.x = keep * self.x + self.sd * math.sqrt(1 - keep * keep) * self.r.gauss(0, 1)
        return self.x


class Load:
    """Requests per second: a day curve between quiet and 1, weekends, minutes of wandering, whole requests."""

    def __init__(self, r, rps, quiet=.3, weekend=1.0, wander=.08, phase=None, sharp=1.0):
        self.r, self.rps, self.quiet, self.weekend, self.sharp = r, rps, quiet, weekend, sharp
        self.phase, self.drift = r.random() if phase is None else phase, Drift(r, wander, 240)

    def rate(self, t, dt):
        wave = (.5 - .5 * math.cos(2 * math.pi * (t / DAY - self.phase))) ** self.sharp
        level = self.quiet + (1 - self.quiet) * wave
        if int(t / DAY) % 7 >= 5:
            level *= self.weekend
        return max(0.0, self.rps * level * (1 + self.drift.step(dt)))

    def requests(self, t, dt):
        return poisson(self.r, self.rate(t, dt) * dt)


def poisson(r, mean):
    if mean > 30:
        return max(0, int(r.gauss(mean, math.sqrt(mean)) + .5))
    n, p, floor = 0, r.random(), math.exp(-mean)
    while p > floor:
        n, p = n + 1, p * r.random()
    return n


def pareto(r, low, high, alpha=1.3):
    """A size between low and high with a heavy tail."""
    return min(high, low * r.paretovariate(alpha))


class GoHeap:
    """Mark and sweep: collects when garbage reaches live * gogc/100 (4 MiB at least) or the soft limit, whichever is sooner. Freed
    pages go back slowly, all but a tenth above the goal (the scavenger). Several collections within a step leave a phase."""

    def __init__(self, gogc=100, soft_limit=None):
        self.gogc, self.soft, self.garbage, self.mapped = gogc / 100, soft_limit, 0.0, 0.0

    def step(self, live, alloc, dt):
        room = max(4.0, live * self.gogc)
        if self.soft is not None:
            room = max(.02 * live + 1, min(room, self.soft - live))
        self.garbage += alloc
        peak = live + min(self.garbage, room)
        if self.garbage >= room:
            self.garbage %= room
        heap = live + self.garbage
        self.mapped = max(peak, heap, self.mapped - max(0.0, self.mapped - 1.1 * (live + room)) * (1 - math.exp(-dt / 60)))
        idle = self.mapped - heap
        self.mapped -= idle * (1 - math.exp(-dt / 1800))
        return self.mapped


class Generations:
    """Eden, survivors, old generation (a JVM with G1): promoted garbage piles up in the old one until its occupancy passes the
    threshold; regions once touched stay resident, up to the maximum heap, or are given back after a collection (`uncommit`)."""

    def __init__(self, r, xmx, eden=.25, promote=.02, threshold=.55, uncommit=False):
        self.xmx, self.eden_size, self.promote = xmx, eden * xmx, promote
        self.limit, self.uncommit = threshold * xmx, uncommit
        self.eden, self.old_garbage, self.touched = r.random() * self.eden_size * .5, 0.0, .06 * xmx

    def step(self, live, alloc, dt):
        self.eden += alloc
        if self.eden >= self.eden_size:
            self.old_garbage += self.promote * self.eden
            self.eden %= self.eden_size
        if live + self.old_garbage > max(self.limit, live * 1.05):
            self.old_garbage = 0.0
            if self.uncommit:
                self.touched = live + self.eden
        self.touched = min(max(self.touched, live + self.old_garbage + self.eden), max(self.xmx, live))
        return self.touched


class Counted:
    """Reference counting over a malloc with size classes: every class holds its own high water, so the sum creeps up as the classes
    peak at different times. `trim` gives a share of the free pages back per hour."""

    def __init__(self, r, classes=12, spread=.35, tau=900, trim=0.0):
        self.waves = [Drift(r, spread, tau * r.uniform(.3, 3)) for _ in range(classes)]
        self.high, self.trim = [0.0] * classes, trim

    def step(self, live, dt):
        part, total = live / len(self.high), 0.0
        for i, wave in enumerate(self.waves):
            now = part * math.exp(wave.step(dt))
            kept = self.high[i] - (self.high[i] - now) * self.trim * dt / H
            self.high[i] = max(now, kept)
            total += self.high[i]
        return total


class Arenas:
    """A heap for each thread (glibc): a thread gets one at its first request, and it keeps the largest request it ever served."""

    def __init__(self, r, count, low, high):
        self.r, self.low, self.high, self.sizes = r, low, high, [0.0] * count

    def step(self, requests):
        for _ in range(min(requests, 40)):
            i = self.r.randrange(len(self.sizes))
            self.sizes[i] = max(self.sizes[i], pareto(self.r, self.low, self.high))
        return sum(self.sizes)


class Cache:
    """Entries by key popularity (Zipf, in groups of ranks): what fraction of each group is held. With a time to live it forgets,
    with a capacity it evicts, with neither it holds whatever was ever asked for."""

    def __init__(self, keys, entry_mib, zipf=.9, ttl=None, capacity=None, groups=24):
        edges = sorted({int(keys ** (i / groups)) for i in range(groups + 1)})
        self.sizes = [b - a for a, b in zip(edges, edges[1:])]
        weights = [1 / ((a + b) / 2) ** zipf for a, b in zip(edges, edges[1:])]
        total = sum(n * w for n, w in zip(self.sizes, weights))
        self.p, self.held = [w / total for w in weights], [0.0] * len(weights)
        self.entry, self.ttl, self.capacity = entry_mib, ttl, capacity

    def step(self, requests, dt):
        gone = math.exp(-dt / self.ttl) if self.ttl else 1.0
        total = 0.0
        for i, p in enumerate(self.p):
            self.held[i] = 1 - (1 - self.held[i] * gone) * math.exp(-p * requests)
            total += self.held[i] * self.sizes[i]
        size = total * self.entry
        return size if self.capacity is None else min(size, self.capacity)


class Pool:
    """Connections: as many as requests are in flight, each with its buffers; an idle one is closed after a while."""

    def __init__(self, mib, idle=300, most=10**9):
        self.mib, self.idle, self.most, self.open = mib, idle, most, 0.0

    def step(self, in_flight, dt):
        need = min(in_flight, self.most)
        self.open = max(need, self.open - (self.open - need) * (1 - math.exp(-dt / self.idle)))
        return self.open * self.mib


class Backlog:
    """A queue in memory between a producer and a consumer: what is not consumed waits; a bound drops the rest."""

    def __init__(self, mib, bound=None):
        self.mib, self.bound, self.waiting = mib, bound, 0.0

    def step(self, arrived, served):
        self.waiting = max(0.0, self.waiting + arrived - served)
        if self.bound is not None:
            self.waiting = min(self.waiting, self.bound / self.mib)
        return self.waiting * self.mib


class Outages:
    """Times of trouble, minutes to an hour long, at random: a broker down, a bad deploy of a neighbour, a slow disk."""

    def __init__(self, r, every, low, high, start=0.0):
        self.r, self.every, self.low, self.high = r, every, low, high
        self.begins, self.ends = start + r.expovariate(1 / every), None

    def now(self, t):
        if self.ends is None and t >= self.begins:
            self.ends = t + self.r.uniform(self.low, self.high)
        if self.ends is not None and t >= self.ends:
            self.begins, self.ends = t + self.r.expovariate(1 / self.every), None
        return self.ends is not None


class Job:
    """Work that comes by the clock: memory climbs while data is read, stands while it is worked on, and is freed."""

    def __init__(self, every, offset, read, work, free=20):
        self.every, self.offset, self.read, self.work, self.free = every, offset, read, work, free

    def share(self, t):
        s = (t + self.offset) % self.every
        if s < self.read:
            return s / self.read
        s -= self.read
        return 1.0 if s < self.work else max(0.0, 1 - (s - self.work) / self.free)

    def number(self, t):
        return int((t + self.offset) // self.every)
