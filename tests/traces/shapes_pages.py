"""The register of the first book: within each family, shapes go in turn, in the order they are written in, to `tune` and to `held`."""
SHAPES = {}


def shape(family):
    def keep(fn):
        number = sum(f == family for f, _, _ in SHAPES.values())
        SHAPES[fn.__name__] = (family, "tune" if number % 2 == 0 else "held", fn)
        return fn
    return keep
