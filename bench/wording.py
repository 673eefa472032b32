"""Numbers with their nouns, for people."""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 request", "1,200 requests"."""
    return f"{n:,} {noun_of(n, noun)}"


def noun_of(n: int, noun: str) -> str:
    """Return a noun in the singular or the plural."""
    return noun if n == 1 else f"{noun}s"
