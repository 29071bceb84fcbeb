"""The settings of `wm-eval`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

from worldmodel_v.errors import ConfigError
from worldmodel_v.evaluation.prior import Kind
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Locations

MIN_FRAMES = 10
"""With fewer frames, correlations and maps of the latents mean nothing."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measure how good a VAE's latents are, on the episodes that its training held out.

    Writes metrics.json, pictures, and report.html: one page that needs no other file. The same command again does nothing;
    other settings evaluate again; another VAE or other data are refused for the same directory.
    """

    vae: LocalPath = LocalPath()
    """The directory that wm-train wrote."""

    data: Locations = Locations()
    """The rollouts that the VAE was trained on, or others, one dataset or several; directories or URLs."""

    out: LocalPath = LocalPath()
    """Where the report goes: a new or empty directory, or an evaluation of the same VAE and data."""

    autoencoder: str | None = None
    """module:Class, if it is an autoencoder of your own: its code runs only if you name it."""

    frames: Annotated[int, Ge(MIN_FRAMES)] = 10_000
    """At most so many held-out frames are measured, evenly spaced."""

    holdout_every: Annotated[int | None, Ge(2)] = None
    """Every k-th episode is held out; by default as in training. Its own data takes no other value."""

    prior: Kind = "mixture"
    """What is fitted to the latents, for samples, holes and unlikely frames; to tokens always an autoregressive one."""

    factors: tuple[str, ...] = ()
    """Recorded state (velocity_x, …) to compare the latents with; by default all of it."""

    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    """Seeds all that is drawn: noise, samples, the map of the latents."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        require_settings(self)
        if repeated := [name for name in self.factors if self.factors.count(name) > 1]:
            raise ConfigError(f"names {repeated[0]!r} twice", field="factors", got=self.factors)
