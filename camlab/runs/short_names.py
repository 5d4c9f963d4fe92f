"""Shorten the values of a table's column as far as they can still be told apart."""

from collections.abc import Iterator, Sequence


def shorten(values: Sequence[str]) -> list[str]:
    """Leave out digits after the sixth or leading folders of paths, as long as no two values become equal.

    Example:
        >>> shorten(["/data/photos/cats", "/data/photos/dogs", "imagenet"])
        ['cats', 'dogs', 'imagenet']
        >>> shorten(["/a/1/run", "/a/2/run"])
        ['1/run', '2/run']
        >>> shorten(["0.000123456789", "0.1"])
        ['0.000123457', '0.1']
    """
    for short in _candidates(values):
        if len(set(short)) == len(set(values)):
            return short
    return list(values)


def _candidates(values: Sequence[str]) -> Iterator[list[str]]:
    """The same values written in shorter ways, the shortest first."""
    if not any("/" in value for value in values):
        yield [_six_digits(value) for value in values]
    for parts in range(1, max((value.count("/") for value in values), default=0) + 1):
        yield ["/".join(value.rstrip("/").split("/")[-parts:]) for value in values]


def _six_digits(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:g}"
