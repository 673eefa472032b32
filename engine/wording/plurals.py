"""Numbers of things. Pure."""


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 slot", "2 slots". `plural` is for nouns that take more than an s."""
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"
