"""More of where memory goes: runtimes as their manuals describe them, stores, transfers, weeks of work. MiB and seconds (stdlib only).

Made for `second.py`, apart from `mechanisms.py`, so that the second book does not share its views.
"""
import heapq, math

from book import warm
from mechanisms import H, Drift, poisson

OFFICE = (6, 5, 5, 5, 6, 10, 20, 45, 80, 100, 98, 90, 72, 85, 95, 92, 80, 60, 40, 30, 25, 20, 14, 9)
EVENING = (45, 30, 20, 14, 12, 14, 20, 30, 38, 42, 45, 50, 55, 52, 50, 52, 58, 68, 80, 92, 100, 98, 85, 65)
COMMUTE = (8, 5, 4, 4, 8, 25, 70, 100, 90, 50, 40, 42, 48, 44, 42, 50, 70, 98, 90, 60, 40, 30, 20, 12)
NONE_BY_NIGHT = (0, 0, 0, 0, 0, 0, 0, 30, 80, 100, 95, 90, 60, 90, 95, 90, 80, 50, 10, 0, 0, 0, 0, 0)
EVEN = (100,) * 24


def base(r, mib, tau=15, sway=.004):
    """Code, runtime, what is set up at the start."""
    drift = Drift(r, sway * mib, r.uniform(20, 200))
    return lambda t, dt, up: mib * warm(up, tau) + drift.step(dt)


def lognormal(r, mean, sigma):
    return mean * math.exp(r.gauss(-sigma * sigma / 2, sigma))


class Week:
    """Calls per second by the hour of the day, less at weekends; a trace begins at any hour of any weekday."""

    def __init__(self, r, rps, hours=OFFICE, weekend=.35, sway=.07, begin=None):
        self.r, self.rps, self.hours, self.weekend = r, rps, hours, weekend
        self.begin = r.uniform(0, 7 * 24) if begin is None else begin
        self.drift, self.minutes = Drift(r, sway, 60), Drift(r, sway, 900)

    def rate(self, t, dt):
        hour = (t / H + self.begin) % 168
        whole = int(hour)
        low, high = self.hours[whole % 24], self.hours[(whole + 1) % 24]
        level = (low + (high - low) * (hour - whole)) / 100 * (self.weekend if whole >= 120 else 1)
        return max(0.0, self.rps * level * (1 + self.drift.step(dt) + self.minutes.step(dt)))

    def calls(self, t, dt):
        return poisson(self.r, self.rate(t, dt) * dt)


class GoPacer:
    """The Go collector: a cycle ends at live * (1 + GOGC/100) or at GOMEMLIMIT, one is forced after two idle minutes, and the background
    scavenger gives pages above 1.1 goals back at a rate of its own. GOGC=off is `gogc=None`."""

    def __init__(self, r, gogc=100, limit=None, scavenge=.4):
        self.r, self.gogc, self.limit, self.scavenge = r, gogc, limit, scavenge
        self.garbage, self.mapped, self.age = 0.0, 0.0, 0.0

    def step(self, live, alloc, dt):
        goal = max(live + 4, live * (1 + self.gogc / 100)) if self.gogc is not None else float("inf")
        if self.limit is not None:
            goal = max(min(goal, self.limit), 1.02 * live + 1)
        room, self.garbage, self.age = goal - live, self.garbage + alloc * dt, self.age + dt
        top = live + min(self.garbage, room)
        if self.garbage >= room:
            self.garbage, self.age = self.r.random() * min(room, self.garbage - room), 0.0
        elif self.age >= 120:
            self.garbage, self.age = .1 * self.garbage, 0.0
        keep = max(live + self.garbage, min(1.1 * goal, self.limit or float("inf"), self.mapped))
        self.mapped = max(top, keep, self.mapped - self.scavenge * dt)
        return self.mapped


class G1:
    """Regions: a young part that is resized within 5 and 60 % of the heap, survivors that pile up in old regions, mixed collections once
    these pass the threshold. A region once used stays resident; an idle heap shrinks only if asked to (JEP 346)."""

    def __init__(self, r, xmx, xms=0.0, threshold=.45, survive=.02, shrink=False):
        self.r, self.xmx, self.threshold, self.survive, self.shrink = r, xmx, threshold, survive, shrink
        self.young, self.eden, self.old, self.touched = .05 * xmx, 0.0, 0.0, .3 * xms

    def step(self, live, alloc, dt):
        self.eden += alloc * dt
        for _ in range(min(8, int(self.eden / self.young))):
            self.old += self.survive * self.young * self.r.uniform(.4, 1.6)
            self.eden = max(0.0, self.eden - self.young)
            room = max(.05 * self.xmx, min(.6 * self.xmx, .9 * self.xmx - live - self.old))
            self.young = min(room, max(.05 * self.xmx, self.young * self.r.uniform(.88, 1.16)))
        self.eden = min(self.eden, self.young)
        if live + self.old > max(self.threshold * self.xmx, 1.05 * live):
            self.old *= self.r.uniform(.05, .3)
        used = min(self.xmx, live + self.old + self.eden)
        self.touched = max(self.touched, used)
        if self.shrink:
            self.touched -= (self.touched - min(self.touched, 1.3 * used)) * (1 - math.exp(-dt / 900))
        return self.touched


class ZHeap:
    """ZGC: filled to a share of the heap, collected to the live set, and pages unused for five minutes given back (JEP 351)."""

    def __init__(self, r, xmx, share=.8, delay=300):
        self.r, self.xmx, self.share, self.delay, self.used, self.kept, self.since = r, xmx, share, delay, 0.0, 0.0, 0.0

    def step(self, live, alloc, dt):
        self.used = max(live, self.used + alloc * dt)
        if self.used >= self.share * self.xmx:
            self.used = live + self.r.uniform(.02, .08) * self.xmx
        self.since = 0.0 if self.used >= .97 * self.kept else self.since + dt
        if self.since > self.delay:
            self.kept -= (self.kept - self.used) * (1 - math.exp(-dt / 30))
        self.kept = max(self.kept, self.used)
        return self.kept


class V8:
    """Semi-spaces, and an old generation swept when it passes a trigger that grows with the live set, less so near the maximum."""

    def __init__(self, r, maximum, survive=.06):
        self.r, self.maximum, self.survive, self.old, self.trigger = r, maximum, survive, 0.0, 24.0

    def step(self, live, alloc, dt):
        self.old += self.survive * alloc * dt
        if live + self.old >= self.trigger:
            room = max(0.0, 1 - live / self.maximum)
            self.old *= self.r.uniform(.02, .15)
            self.trigger = live + max(12.0, live * (.15 + .85 * room * self.r.uniform(.7, 1.1)))
        return live + self.old + self.r.uniform(4, 24)


class PyArenas:
    """CPython: freed objects leave holes, for an arena goes back only when all of it is free; later objects use most of them."""

    def __init__(self, pin=.35, tau=3 * H):
        self.pin, self.tau, self.live, self.holes = pin, tau, 0.0, 0.0

    def step(self, live, dt):
        change, self.live = live - self.live, live
        self.holes = self.holes - min(.8 * self.holes, change) if change > 0 else self.holes - self.pin * change
        self.holes *= math.exp(-dt / self.tau)
        return live + self.holes


class ThreadHeaps:
    """glibc: an arena per thread is cut only from its top, and now and then a long-lived block sits there for a while."""

    def __init__(self, r, count, mib, sigma=.8, sits=.02, lives=2 * H):
        self.r, self.mib, self.sigma, self.sits, self.lives = r, mib, sigma, sits, lives
        self.tops, self.until = [mib] * count, [0.0] * count

    def step(self, t, calls, dt):
        for _ in range(min(calls, 12)):
            i = self.r.randrange(len(self.tops))
            need = lognormal(self.r, self.mib, self.sigma)
            self.tops[i] = max(need, self.tops[i]) if t < self.until[i] else need
            if self.r.random() < self.sits:
                self.until[i] = t + self.r.expovariate(1 / self.lives)
        return sum(self.tops)


class Slabs:
    """memcached: pages of 1 MiB go to size classes as items of their sizes come, up to -m, and never back; the index doubles."""

    def __init__(self, r, most, item):
        weights = [math.exp(-((i - 4) / 2) ** 2 / 2) * r.uniform(.6, 1.4) for i in range(10)]
        self.most, self.stored, self.pages = most, [0.0] * 10, [0] * 10
        self.shares, self.item, self.items, self.index = [w / sum(weights) for w in weights], item, 0.0, .5

    def step(self, stores):
        for i, share in enumerate(self.shares):
            self.stored[i] += share * stores * self.item
            while self.stored[i] > self.pages[i] and sum(self.pages) < self.most:
                self.pages[i] += 1
            self.stored[i] = min(self.stored[i], self.pages[i])
        self.items = sum(self.stored) / self.item
        while self.items * 8e-6 > 1.5 * self.index:
            self.index *= 2
        return sum(self.pages) + self.index


class Entries:
    """A cache of so many entries, or of entries that live so long and are swept now and then; their sizes are lognormal."""

    def __init__(self, r, mib, sigma=1.0, most=None, ttl=None, sweep=1.0):
        self.r, self.mib, self.sigma, self.most, self.ttl, self.sweep = r, mib, sigma, most, ttl, sweep
        self.batches, self.count, self.total, self.first, self.swept = [], 0, 0.0, 0, 0.0

    def step(self, t, added):
        if added:
            size = sum(lognormal(self.r, self.mib, self.sigma) for _ in range(min(added, 4))) / min(added, 4) * added
            self.batches.append((t, added, size))
            self.count, self.total = self.count + added, self.total + size
        if self.ttl and t - self.swept >= self.sweep:
            self.swept = t
            while self.first < len(self.batches) and self.batches[self.first][0] < t - self.ttl:
                self.forget()
        while self.most and self.count > self.most:
            self.forget()
        return max(0.0, self.total)

    def forget(self):
        _, count, size = self.batches[self.first]
        self.first, self.count, self.total = self.first + 1, self.count - count, self.total - size
        if self.first > 4096:
            self.batches, self.first = self.batches[self.first:], 0


class Lsm:
    """Memtables that fill and are flushed while the next one fills, a block cache with a cap, readers of a compaction every few flushes."""

    def __init__(self, r, table, cache, every=4):
        self.r, self.table, self.most, self.every = r, table, cache, every
        self.fill, self.flushing, self.flushes, self.cache, self.busy = 0.0, 0.0, 0, 0.0, 0.0

    def step(self, written, missed, dt):
        self.fill += written
        self.flushing = max(0.0, self.flushing - 3 * dt)
        if self.fill >= self.table:
            self.fill, self.flushing, self.flushes = 0.0, self.flushing + self.table, self.flushes + 1
            if self.flushes % self.every == 0:
                self.busy = self.r.uniform(20, 90)
        self.busy = max(0.0, self.busy - dt)
        self.cache += missed * (1 - self.cache / self.most) if self.cache < self.most else 0
        return self.fill + self.flushing + self.cache + (.4 * self.table if self.busy else 0)


class ForkedSave:
    """Redis: while the child writes its file, each page that is written to is copied; the child's end frees all of them."""

    def __init__(self, every, seconds):
        self.every, self.seconds = every, seconds

    def step(self, t, data, written):
        s = t % self.every - (self.every - self.seconds)
        return data * (1 - math.exp(-written * s / max(1.0, data))) if s > 0 else 0.0


class HeadBlock:
    """Prometheus: two to three hours of samples in memory; the oldest two hours are written out at the even hour, which costs a while."""

    def __init__(self, begin, per_series, sample):
        self.begin, self.per_series, self.sample, self.hours = begin, per_series, sample, 0.0

    def step(self, t, series, dt):
        self.hours += dt / H
        s = (t + self.begin) % (2 * H)
        if s < dt and self.hours > 2.4:
            self.hours -= 2
        return series * (self.per_series + self.sample * self.hours) * (1.12 if s < 240 else 1)


class Backends:
    """A process per connection: each learns tables as it ages, and is replaced at the end of its lifetime."""

    def __init__(self, r, count, lifetime, young, old, tau=1500):
        self.r, self.lifetime, self.young, self.old, self.tau = r, lifetime, young, old, tau
        self.born = [-r.random() * lifetime * .01 for _ in range(count)]
        self.ends = [b + lifetime * r.uniform(.3, 1.3) for b in self.born]

    def step(self, up):
        for i, end in enumerate(self.ends):
            if up >= end:
                self.born[i], self.ends[i] = up, up + self.lifetime * self.r.uniform(.7, 1.3)
        return sum([self.young + self.old * (1 - math.exp((b - up) / self.tau)) for b in self.born])


class Visits:
    """Things that come, grow to their size at a rate, stay for a while and are freed: uploads, renders, sessions, jobs."""

    def __init__(self, r, size, stay, rate=None, most=None):
        self.r, self.size, self.stay, self.rate, self.most = r, size, stay, rate, most
        self.there, self.settled, self.rising = [], 0.0, []

    def step(self, t, arrivals):
        while self.there and self.there[0][0] <= t:
            self.settled -= heapq.heappop(self.there)[1]
        for _ in range(arrivals):
            if self.most and len(self.there) + len(self.rising) >= self.most:
                break
            self.rising.append((t, self.size(self.r)))
        part, still = 0.0, []
        for begin, size in self.rising:
            have = (t - begin) * self.rate if self.rate else size
            if have >= size:
                heapq.heappush(self.there, (t + self.stay(self.r), size))
                self.settled += size
            else:
                still.append((begin, size))
                part += have
        self.rising = still
        return max(0.0, self.settled) + part

    def number(self):
        return len(self.there) + len(self.rising)


class Generational:
    """What a reload leaves: the new generation at once, the old ones until their last connections are gone."""

    def __init__(self, mib, drain, longest=None):
        self.mib, self.drain, self.longest, self.old = mib, drain, longest, []

    def reload(self, t):
        self.old.append(t)

    def step(self, t):
        self.old = [at for at in self.old if t - at < (self.longest or 8 * self.drain)]
        return self.mib * (1 + sum([math.exp((at - t) / self.drain) for at in self.old]))


class Doubling:
    """A hash table that doubles: for the time of a copy the old one and the new one are there."""

    def __init__(self, slot, capacity=4096):
        self.slot, self.capacity, self.moving = slot, capacity, 0.0

    def step(self, entries, dt):
        self.moving = max(0.0, self.moving - dt)
        while entries > .8 * self.capacity:
            self.capacity, self.moving = self.capacity * 2, 1.0 + self.capacity * 4e-6
        return self.capacity * self.slot * (1.5 if self.moving else 1)


class Clock:
    """Moments by an exponential or an even gap: how many came since the last look."""

    def __init__(self, r, gap, begin=0.0, spread=True):
        self.r, self.gap, self.spread = r, gap, spread
        self.next = begin + (r.expovariate(1 / gap) if spread else r.random() * gap)

    def ticks(self, t):
        count = 0
        while t >= self.next:
            count += 1
            self.next += self.r.expovariate(1 / self.gap) if self.spread else self.gap
        return count
