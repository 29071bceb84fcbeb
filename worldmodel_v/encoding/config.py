"""The settings of `wm-encode`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from worldmodel_v.encoding.inference import Precision
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Executor, RayPool, WorkerSettings, refuse_idle_address
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Locations
from worldmodel_v.surface import option

MAX_BATCH_SIZE = 1 << 20
"""64x64 frames of this number take 13 GB, and many times that in the network."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode every episode of rollout datasets into a latent sequence: for a VAE mu and logvar, with the other columns.

    Each rollout shard gives one latent shard, which records the hashes of the rollout shard and of the VAE. Run the same
    command again to encode what is new; another VAE or other rollouts are refused for the same directory.
    """

    data: Locations = Locations()
    """The rollouts, one dataset or several that agree as for wm-select; directories or URLs."""

    vae: LocalPath = LocalPath()
    """The directory that wm-train wrote."""

    out: LocalPath = LocalPath()
    """Where the latents go: a new or empty directory, or latents of the same rollouts and VAE."""

    autoencoder: str | None = None
    """module:Class, if it is an autoencoder of your own: its code runs only if you name it."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "fp32"
    """fp32 is exact; bf16 is faster on a CPU (not for resnet), with an error of 14 to 18% of sigma."""

    compile: bool = False
    """Use torch.compile; slower on a CPU for resnet and conv, and not measured on CUDA yet."""

    dtype: Literal["float32", "float16"] = "float32"
    """How real numbers are stored: float16 takes half the space."""

    batch_size: Annotated[int | None, Interval(ge=1, le=MAX_BATCH_SIZE)] = None
    """Frames encoded at once, in multiples of 64; by default 64 on a CPU, 1024 on CUDA."""

    workers: Annotated[int, Ge(0)] = 0
    """Ray workers, one core each, or one GPU with --device cuda; 0: here, on all cores, the fastest on one machine."""

    address: str | None = None
    """Ray cluster of the workers: auto, HOST:PORT or ray://HOST:PORT; else RAY_ADDRESS, else one on this machine."""

    def executor(self, num_tasks: int) -> Executor | None:
        """The workers for `num_tasks` tasks, at most one for each task; None if this process encodes, which needs no tasks."""
        if self.workers == 0:
            return None
        num_gpus = 1.0 if self.device.startswith("cuda") else 0.0
        return RayPool(
            WorkerSettings(num_workers=min(self.workers, num_tasks), address=self.address, num_gpus_per_worker=num_gpus)
        )

    def __post_init__(self) -> None:
        require_settings(self)
        refuse_idle_address(self.address, self.workers)
        if self.workers > 0 and self.device.startswith("cuda:"):
            raise ConfigError(
                "each worker sees one GPU of its own",
                field="device",
                got=self.device,
                remedy=f"ask for {option('device', 'cuda')}",
            )
