"""The setting that every part of `gpu.py` gets: the device, the data, how much of it, and the time limit."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from _rollouts import repeated

from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.storage import open_dataset

Value = TypeVar("Value")

PATHS = ("data", "shortest", "folder")

HOLDOUT_EVERY = 4
"""Every k-th episode is held out: there are few episodes."""

ARCHITECTURE = "conv"
"""The network of checks that need only one."""

FLOAT32_LOSS, FLOAT32_GRADIENT = 1e-4, 1e-2
"""Allowed errors of one step's loss, and of each gradient as a share of its largest value, due to another order of sums."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device, the data and the size of it all."""

    device: str
    """cpu or cuda"""

    small: bool
    """Whether to use little data and few steps, so that everything takes about a minute on two cores."""

    data: Path
    """Rollouts of wm-collect."""

    shortest: Path | None
    """Rollouts of a single action."""

    folder: Path
    """For temporary files."""

    left_until: float = field(default=float("inf"))
    """When the part should end, on `time.monotonic`'s clock."""

    def told(self) -> dict[str, Any]:
        """What another process needs to know, as JSON holds it."""
        paths = {name: value and str(value) for name, value in asdict(self).items() if name in PATHS}
        return {"device": self.device, "small": self.small, **paths}

    @classmethod
    def from_told(cls, told: dict[str, Any]) -> Self:
        """The setting from the values of `told`."""
        return cls(**{name: Path(value) if value and name in PATHS else value for name, value in told.items()})

    @property
    def target(self) -> torch.device:
        return torch.device(self.device)

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def seconds_left(self) -> float:
        return self.left_until - time.monotonic()

    def pick(self, full: Value, small: Value) -> Value:
        """`full`, or with `small` the other value."""
        return small if self.small else full

    def looped(self, num_frames: int) -> Path:
        """The given shards, repeated until there are `num_frames` frames; made once."""
        out = self.folder / f"looped_{num_frames}"
        if not out.exists():
            unfinished = self.folder / f"unfinished_{os.getpid()}_{num_frames}"
            repeated(open_dataset(self.data), unfinished, num_frames).rename(out)
        return out

    def vae(self) -> Path:
        """The VAE that the part `vae` has trained; if that failed, one with fresh weights, which is as fast."""
        trained = self.folder / "vae"
        return trained if (trained / WEIGHTS_NAME).exists() else self.fresh_vae(self.vae_architecture)

    def fresh_vae(self, architecture: str) -> Path:
        """The directory of a VAE that was never trained."""
        out = self.folder / f"fresh_{architecture}"
        if not (out / WEIGHTS_NAME).exists():
            out.mkdir(exist_ok=True)
            torch.manual_seed(0)
            spec = open_dataset(self.data).spec
            shape = {name: getattr(spec, name) for name in ("frame_height", "frame_width")}
            model = VAE(VAEConfig(**shape, architecture=architecture))  # type: ignore[arg-type]
            (out / WEIGHTS_NAME).write_bytes(save(model))
        return out

    @property
    def vae_architecture(self) -> str:
        return self.pick("resnet", "mlp")


def synchronize(setting: Setting) -> None:
    """Wait until the device is done."""
    if setting.on_cuda:
        torch.cuda.synchronize()


def tidy(setting: Setting) -> None:
    """Free the last part's memory on the device."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it counts what it has compiled, and gives up at a limit
    if setting.on_cuda:
        torch.cuda.empty_cache()


@contextmanager
def peak_of_device(setting: Setting) -> Iterator[list[float]]:
    """The peak of what tensors held on the device, in MB, as the one value of a list; none on a CPU."""
    found: list[float] = []
    if setting.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    yield found
    if setting.on_cuda:
        torch.cuda.synchronize()
        found.append(torch.cuda.max_memory_allocated() / 1e6)
