"""Parts of a process, functions `(t, dt, up) -> MiB`, and how they add up to the step of a life (stdlib only)."""
from book import QUIET_CACHE, QUIET_THREADS, since, warm
from mechanisms import Drift


def process(*parts, cache=QUIET_CACHE, threads=QUIET_THREADS):
    """A step that sums its parts; page cache and threads are numbers or functions of the same arguments."""
    def step(t, dt, up):
        mib = sum([part(t, dt, up) for part in parts])
        return mib, cache(t, dt, up) if callable(cache) else cache, threads(t, dt, up) if callable(threads) else threads
    return step


def both(*parts):
    return lambda t, dt, up: sum([part(t, dt, up) for part in parts])


def fixed(mib):
    return lambda t, dt, up: mib


def warming(mib, tau=30):
    return lambda t, dt, up: mib * warm(up, tau)


def drifting(r, sd, tau):
    drift = Drift(r, sd, tau)
    return lambda t, dt, up: drift.step(dt)


def growing(at, rate):
    return lambda t, dt, up: rate * since(t, at)


def piling(amount, at=0.0):
    """What `amount(t, dt)` adds at each step from `at` on, and nothing takes away."""
    total = [0.0]

    def part(t, dt, up):
        if t >= at:
            total[0] += amount(t, dt)
        return total[0]
    return part


def managed(heap, live, alloc):
    """A part whose live set is collected by `heap`; `alloc` is MiB per second, or a function (t, dt) of it."""
    if callable(alloc):
        return lambda t, dt, up: heap.step(live(t, dt, up), alloc(t, dt), dt)
    return lambda t, dt, up: heap.step(live(t, dt, up), alloc, dt)


def collected(heap, live, alloc):
    """The same for the heaps of `mechanisms.py`, which take what was allocated within the step."""
    if callable(alloc):
        return lambda t, dt, up: heap.step(live(t, dt, up), alloc(t, dt) * dt, dt)
    return lambda t, dt, up: heap.step(live(t, dt, up), alloc * dt, dt)


def counted(heap, live):
    return lambda t, dt, up: heap.step(live(t, dt, up), dt)


def requested(cache, load):
    """A cache that sees each request of the load."""
    return lambda t, dt, up: cache.step(load.requests(t, dt), dt)


def pooled(pool, load, factor=None):
    """A pool of what the load has in flight, times `factor(t)`."""
    if factor is None:
        return lambda t, dt, up: pool.step(load.rate(t, dt), dt)
    return lambda t, dt, up: pool.step(load.rate(t, dt) * factor(t), dt)
