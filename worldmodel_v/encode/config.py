"""What `wm-encode` can be asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from worldmodel_v.encode.inference import Precision
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Executor, RayPool, WorkerSettings, refuse_idle_address
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import Location, local_path, to_place
from worldmodel_v.surface import option

MAX_BATCH_SIZE = 1 << 20
"""Frames of 64x64 for 13 GB, and many times that in the network."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode every episode of a rollout dataset into a latent sequence: of a VAE mu and logvar, and the columns beside them.

    One latent shard for each rollout shard, bound by hash to it and to the VAE. The same command again encodes what is
    new; latents of another VAE or of other rollouts in the same directory are refused.
    """

    data: Location
    """The rollouts that wm-collect wrote: a directory, or its URL."""

    vae: Path
    """The directory that wm-train wrote."""

    out: Path
    """The latent dataset's directory: new, empty, or one made from the same rollouts and VAE."""

    autoencoder: str | None = None
    """module:Class, where the VAE's directory holds an autoencoder of your own: its code runs only where you name it."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "fp32"
    """fp32 is exact, and on a CPU the fastest whose error is below 1% of sigma; bf16 is off there by 17% of sigma in the mean
    for a calibrated VAE, whose sigma is small, and faster but for resnet. On CUDA neither is measured yet."""

    compile: bool = False
    """Compile the encoder with torch.compile. On a CPU it is slower for resnet and conv, and needs a C++ compiler; on CUDA it
    needs Triton, and is not measured yet."""

    dtype: Literal["float32", "float16"] = "float32"
    """How latents are stored that are no whole numbers."""

    batch_size: Annotated[int | None, Interval(ge=1, le=MAX_BATCH_SIZE)] = None
    """Frames encoded at once in a thread, rounded up to whole stored chunks of 64: by default 64 on a CPU, 1024 on CUDA (not
    measured yet); at most 1048576."""

    workers: Annotated[int, Ge(0)] = 0
    """Ray workers, each with one CPU, or with --device cuda one GPU; 0 encodes in this process, with a thread for each core,
    which is the fastest way on one machine without GPUs (with them it is not measured yet)."""

    address: str | None = None
    """The Ray cluster that workers are on (auto, ray://HOST:PORT, HOST:PORT); without it RAY_ADDRESS, or else a local Ray."""

    def executor(self, num_tasks: int) -> Executor | None:
        """The workers for so many tasks, no more of them than tasks; None where this process encodes, which needs no tasks."""
        if self.workers == 0:
            return None
        num_gpus = 1.0 if self.device.startswith("cuda") else 0.0
        return RayPool(
            WorkerSettings(num_workers=min(self.workers, num_tasks), address=self.address, num_gpus_per_worker=num_gpus)
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", to_place(self.data))
        object.__setattr__(self, "out", local_path("out", self.out))
        object.__setattr__(self, "vae", local_path("vae", self.vae))
        require_settings(self)
        refuse_idle_address(self.address, self.workers)
        if self.workers > 0 and self.device.startswith("cuda:"):
            raise ConfigError(
                "each worker sees one GPU of its own",
                field="device",
                got=self.device,
                remedy=f"ask for {option('device', 'cuda')}",
            )
