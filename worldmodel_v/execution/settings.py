"""The settings of workers on a Ray cluster."""

from dataclasses import dataclass

from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Workers, and the cluster that they run on."""

    num_workers: int
    """Ray actors, one CPU each."""

    address: str | None = None
    """The Ray cluster to join; None starts a local one, unless RAY_ADDRESS names a cluster."""

    num_gpus_per_worker: float = 0.0

    max_growth_bytes: int | None = None
    """A worker is replaced if its memory has grown by more than this since its first task; None: no limit."""


def refuse_idle_address(address: str | None, num_workers: int) -> None:
    """Raise ConfigError if a cluster is named but no worker would run on it."""
    if address and not num_workers:
        raise ConfigError(
            "without workers nothing is done on a cluster",
            field="address",
            got=address,
            remedy=f"ask for {option('workers')}, or leave it out",
        )
