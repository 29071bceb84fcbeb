"""`wm-encode`: encode rollouts into latent sequences."""

from worldmodel_v.cli.following import after_encode
from worldmodel_v.cli.main import run


def main() -> None:
    """Entry point of `wm-encode`."""
    from worldmodel_v.encoding import EncodeConfig, encode

    run("wm-encode", EncodeConfig, encode, following=after_encode)
