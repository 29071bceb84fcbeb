"""The base class of all formats: the options of an export, the facts that a reader needs, and the method that writes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from worldmodel_v.errors import ConfigError
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Location, to_place
from worldmodel_v.storage.directory import require_outside


@dataclass(frozen=True)
class Written:
    """The result of a format's writer."""

    num_rows: int
    """Rows in the files, padding included."""

    notes: list[str]
    """Everything that the format lacks, or holds in a different way than the dataset: one sentence each."""

    episode_ids: list[int]
    """The episodes in the files, in the order of the files."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ABC):
    """Base class of the formats. A format is a subclass in a module of its own, and a line in `registry`."""

    data: Location
    """The dataset to export, rollouts or latents, as the format needs: a directory, or its URL."""

    out: LocalPath = LocalPath()
    """The directory to write: new or empty. It appears when the export is complete."""

    name: ClassVar[str]
    """Its name on the command line."""

    reads: ClassVar[tuple[type[Any], ...]]
    """The kinds of dataset that it exports: RolloutSpec, LatentSpec."""

    keeps: ClassVar[tuple[str, ...]] = ()
    """Files that `out` may hold already; they stay in it."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Columns of latents that it requires."""

    modules: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `export` that it needs."""

    alignment: ClassVar[str]
    """Which action and reward are in the same row as a frame or latent, in words."""

    @abstractmethod
    def write(self, source: Source[Any], folder: Path, progress: Progress) -> Written:
        """Write the files into `folder`; raises OSError if the disk fails."""

    def require_columns(self, source: Source[Any]) -> None:
        """Raise ConfigError unless the dataset has the columns that the format requires."""
        found = [column.name for column in source.schema.by_role("latent")]
        if missing := [name for name in self.needs if name not in found]:
            raise ConfigError(
                f"holds the latents {' and '.join(self.needs)} of a VAE, {self.data} has {', '.join(found)} and no "
                f"{missing[0]}; wm-export npz holds any",
                where=self.name,
            )
        shape = source.schema[self.needs[0]].row_shape if self.needs else ()
        if len(shape) > 1:
            raise ConfigError(
                f"holds the latents {' and '.join(self.needs)} as vectors, in {self.data} they are maps of {list(shape)}; "
                "wm-export npz holds any",
                where=self.name,
            )

    def check(self, source: Source[Any]) -> None:  # noqa: B027  (most formats hold any dataset)
        """Raise UsageError, before anything is written, if this dataset cannot be exported with these options."""

    def __post_init__(self) -> None:
        require_settings(self)
        object.__setattr__(self, "data", to_place(self.data))
        require_outside(self.out, to_place(self.data), "lies in the dataset that it is to export")
