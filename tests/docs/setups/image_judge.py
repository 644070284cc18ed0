"""docs/image_judge.md: the bundled judge that sees is there; it is fitted to fewer examples."""


def prepare(page):
    """Give what in the blocks is replaced."""
    return {'"matches", 40': '"matches", 8'}
