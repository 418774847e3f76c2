"""The register of the second book: each shape with its family, whether it leaks, and the behaviour that it models.

A public thread or a manual is named where one shows the behaviour; what anybody has seen is called a general pattern.
"""
PAGES = {}


def leak(family, models):
    return _page(family, models, True)


def healthy(family, models):
    return _page(family, models, False)


def _page(family, models, leaks):
    def keep(fn):
        PAGES[fn.__name__] = (family, models, leaks, fn)
        return fn
    return keep
