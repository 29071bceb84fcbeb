"""Numbers and names of figures, as people read them."""

ABBREVIATIONS = {"psnr", "ssim", "kl", "elbo"}


def counted(number: int, noun: str, form: str = "") -> str:
    """`1 shard`, `2 shards`; with the form `,` also `4,000 shards`."""
    return f"{number:{form}} {noun}" if number == 1 else f"{number:{form}} {noun}s"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, `21st`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def sized(num_bytes: float) -> str:
    """`8.7 kB`, `4.5 MB`, `1,200.0 MB`."""
    return f"{num_bytes / 1e3:.1f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:,.1f} MB"


def figure_in_words(name: str) -> str:
    """`psnr` as PSNR, `active_units` as active units, `kl_top` as KL top."""
    return " ".join(word.upper() if word in ABBREVIATIONS else word for word in name.split("_"))


def are(number: int) -> str:
    """The verb behind such a number."""
    return "is" if number == 1 else "are"
