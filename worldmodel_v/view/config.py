"""The settings of `wm-view`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Locations
from worldmodel_v.storage.directory import require_outside

MAX_BYTES = 8_000_000
"""The largest page: some mail servers and chats take no more than 10 MB."""

MIN_ROWS = 2
"""Of each episode: with fewer there is nothing to play."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Write one page that shows what a VAE does, and that works offline in any browser.

    It has recorded episodes beside their reconstructions, sliders for the latents, whose decoder runs in the page, and with
    an MDN-RNN a dream that is driven with the arrow keys. It has at most 8 MB.
    """

    vae: LocalPath = LocalPath()
    """The directory that wm-train wrote."""

    data: Locations = Locations()
    """Rollouts to show, held-out episodes first, one dataset or several; directories or URLs."""

    out: LocalPath = LocalPath()
    """The page, a file whose name ends in .html; an older page of wm-view is replaced."""

    rnn: Path | None = None
    """The directory that examples/train_mdn_rnn.py wrote, for the dream."""

    autoencoder: str | None = None
    """module:Class, if it is an autoencoder of your own: its code runs only if you name it."""

    episodes: Annotated[int, Ge(1)] = 4
    """At most so many episodes are shown."""

    frames: Annotated[int, Ge(2)] = 2000
    """At most so many frames of them in all; fewer where the page would become too large."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        require_settings(self)
        if self.out.suffix != ".html":
            raise ConfigError(field="out", expected="a name that ends in .html", got=self.out)
        for place in (self.vae, *self.data):
            if isinstance(place, Path):
                require_outside(self.out, place, "lies in a directory that is only read")
        if self.frames < MIN_ROWS * self.episodes:
            what = f"{self.episodes} episodes need at least {MIN_ROWS} frames each"
            raise ConfigError(what, field="frames", got=self.frames, remedy=f"ask for {MIN_ROWS * self.episodes} or more")
