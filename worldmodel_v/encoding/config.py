"""The settings of `wm-encode`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from worldmodel_v.encoding.inference import Precision
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Executor, RayPool, WorkerSettings, refuse_idle_address
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import Location, local_path, to_place
from worldmodel_v.surface import option

MAX_BATCH_SIZE = 1 << 20
"""64x64 frames of this number take 13 GB, and many times that in the network."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode every episode of a rollout dataset into a latent sequence: for a VAE mu and logvar, with the other columns.

    Each rollout shard gives one latent shard, which records the hashes of the rollout shard and of the VAE. Run the same
    command again to encode what is new; another VAE or other rollouts are refused for the same directory.
    """

    data: Location
    """The rollouts that wm-collect wrote: a directory, or its URL."""

    vae: Path
    """The directory that wm-train wrote."""

    out: Path
    """The latent dataset's directory: new, empty, or one made from the same rollouts and VAE."""

    autoencoder: str | None = None
    """module:Class, if the VAE's directory holds an autoencoder of your own: its code runs only if you name it here."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "fp32"
    """fp32 is exact; on a CPU it is the fastest with an error below 1% of sigma. There bf16 is faster (not for resnet), with a
    mean error of 17% of sigma for a calibrated VAE, whose sigma is small. On CUDA neither is measured yet."""

    compile: bool = False
    """Compile the encoder with torch.compile. On a CPU it is slower for resnet and conv, and needs a C++ compiler; on CUDA it
    needs Triton, and is not measured yet."""

    dtype: Literal["float32", "float16"] = "float32"
    """The stored dtype of latents that are real numbers."""

    batch_size: Annotated[int | None, Interval(ge=1, le=MAX_BATCH_SIZE)] = None
    """Frames that a thread encodes at once, rounded up to whole stored chunks of 64: by default 64 on a CPU, 1024 on CUDA (not
    measured yet); at most 1048576."""

    workers: Annotated[int, Ge(0)] = 0
    """Ray workers, each with one CPU, or one GPU with --device cuda. 0 encodes in this process, with one thread for each core:
    the fastest way on one machine without GPUs (with GPUs it is not measured yet)."""

    address: str | None = None
    """The Ray cluster of the workers (auto, ray://HOST:PORT, HOST:PORT); by default RAY_ADDRESS, or else a local Ray."""

    def executor(self, num_tasks: int) -> Executor | None:
        """The workers for `num_tasks` tasks, at most one for each task; None if this process encodes, which needs no tasks."""
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
