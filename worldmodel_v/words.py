"""Numbers in sentences."""


def counted(number: int, noun: str, form: str = "") -> str:
    """`1 shard`, `2 shards`; with the form `,` also `4,000 shards`."""
    return f"{number:{form}} {noun}" if number == 1 else f"{number:{form}} {noun}s"


def are(number: int) -> str:
    """The verb behind such a number."""
    return "is" if number == 1 else "are"
