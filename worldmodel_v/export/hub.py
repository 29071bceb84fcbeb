"""A dataset or a trained autoencoder as a repository of the Hugging Face Hub, and its upload.

A dataset's own files stay as they are, so `hf://datasets/USER/NAME` is read as any other dataset. Parquet with the same rows
stands beside them for the Hub's viewer and `datasets.load_dataset`. The card (`hub_card`) says what it is. Rejected: Parquet
alone, which this package does not read; the shards alone, of which the Hub shows nothing. It costs the space of both.

The folder is complete before anything is uploaded (`hub_upload`).
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel_v.autoencoders.artifact import CONFIG_NAME, MAX_FILE_BYTES, WEIGHTS_NAME, describe, read_training, read_weights
from worldmodel_v.errors import ConfigError
from worldmodel_v.export.hub_card import CARD_NAME, PICTURE_NAME, DatasetFacts, ModelFacts, dataset_card, model_card
from worldmodel_v.export.hub_upload import Hub, Kind
from worldmodel_v.export.packages import optional
from worldmodel_v.export.parquet import arrow_schema, write_parquet
from worldmodel_v.export.source import Source
from worldmodel_v.notebook import shown
from worldmodel_v.origins import imports_of
from worldmodel_v.progress import Progress
from worldmodel_v.settings import local_path, require_settings
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import LocalPath, files, to_place
from worldmodel_v.storage.dataset import SPEC_NAME
from worldmodel_v.storage.directory import require_outside
from worldmodel_v.storage.html import dataset_picture
from worldmodel_v.storage.index import INDEX_NAME
from worldmodel_v.storage.new_directory import new_directory, require_new
from worldmodel_v.storage.store import stream
from worldmodel_v.surface import option
from worldmodel_v.training.publication import HELDOUT_NAME, read_evaluation
from worldmodel_v.training.publication import PICTURE_NAME as RECONSTRUCTIONS_NAME

REPO = re.compile(r"(?!.*(--|\.\.|\.git$))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)
"""As `huggingface_hub.utils.validate_repo_id` takes them."""

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """A dataset or a trained autoencoder as a repository of the Hugging Face Hub: its own files, a card, and for data Parquet.

    Uploaded data are read from hf://datasets/USER/NAME by each command, and by datasets.load_dataset("USER/NAME").
    """

    repo: str
    """USER/NAME: the repository that it is for, or becomes."""

    data: str | Path | None = None
    """The rollouts or latents to share; a directory, or its URL."""

    vae: str | Path | None = None
    """Or the autoencoder: the directory that wm-train wrote."""

    out: LocalPath = LocalPath()
    """The directory to write: new or empty. It appears when it is complete."""

    license: str | None = None
    """What others may do with it, as the Hub names it: mit, cc-by-4.0, …"""

    upload: bool = False
    """Upload it too, with the account of `hf auth login`."""

    private: bool = False
    """Make the repository private, if the upload makes it."""

    def __post_init__(self) -> None:
        require_settings(self)
        if (self.data is None) == (self.vae is None):
            raise ConfigError(f"shares one thing: give {option('data')} or {option('vae')}", where="hub")
        if self.data is not None:
            object.__setattr__(self, "data", to_place(self.data))
        if self.vae is not None:
            object.__setattr__(self, "vae", local_path(self.vae))
        given = to_place(self.data) if self.data is not None else Path(str(self.vae))
        require_outside(self.out, given, "lies in what it is to export")
        if not REPO.fullmatch(self.repo) or len(self.repo) > 96:
            raise ConfigError(
                field="repo",
                expected="USER/NAME, of letters and digits, with single ._- within, not ending in .git",
                got=self.repo,
            )
        if self.license is not None and not LICENSE.fullmatch(self.license):
            raise ConfigError(field="license", expected="one of the Hub's names, such as mit or cc-by-4.0", got=self.license)


@dataclass(frozen=True, kw_only=True)
class HubReport:
    """What an export to the Hub wrote."""

    out: Path
    repo: str
    kind: Kind
    files: int
    bytes: int
    url: str | None
    """Where it was uploaded to; None if it was not."""

    upload_with: str
    """The command that uploads the directory."""

    notes: list[str]
    """What a reader will miss."""


def export_hub(config: HubConfig, progress: Progress | None = None) -> HubReport:
    """Write `config.out` completely or not at all, and upload it if that is asked for.

    Raises UsageError (PackageMissing, OutputNotUsable, DatasetNotUsable, ModelNotUsable, ConfigError without a login, …) before
    anything is written; WriteFailed if the disk fails; RemoteFailed or ConfigError if the upload fails: then the directory is
    there, and the error says how to upload it.
    """
    progress = shown(progress)
    require_new(config.out)
    kind: Kind = "dataset" if config.vae is None else "model"
    hub = Hub(config.repo, kind) if config.upload else None
    if hub:
        hub.require_login()
    notes = [] if config.license else [f"the card names no licence; {option('license', 'cc-by-4.0')} would name one"]
    if config.vae is None:
        notes += _write_dataset(config, progress)
    else:
        _write_model(config, Path(config.vae))
    command = _command(config, kind)
    url = hub.upload(config.out, private=config.private, otherwise=command, progress=progress) if hub else None
    written = [file.stat().st_size for file in config.out.rglob("*") if file.is_file()]
    return HubReport(
        out=config.out,
        repo=config.repo,
        kind=kind,
        files=len(written),
        bytes=sum(written),
        url=url,
        upload_with=command,
        notes=notes,
    )


def _write_dataset(config: HubConfig, progress: Progress) -> list[str]:
    """The dataset's own files, Parquet, picture and card; returns a note if it was imported under another licence."""
    assert config.data is not None
    optional("pyarrow", extra="hub")
    source: Source[Any] = Source(config.data, (RolloutSpec, LatentSpec), progress)
    dataset = source.dataset
    arrow_schema(dataset.schema)
    with stream(dataset.path / SPEC_NAME) as file:
        described = file.read()
    with new_directory(config.out) as folder:
        for name in ("shards", "data"):
            (folder / name).mkdir()
        (folder / SPEC_NAME).write_bytes(described)
        (folder / INDEX_NAME).write_text("".join(f"{entry.to_line()}\n" for entry in dataset.entries))
        task = progress.task("export", len(dataset.entries), "shards")
        for entry in dataset.entries:
            image = dataset.image(entry)
            (folder / entry.name).write_bytes(image)
            with dataset.open_shard(entry, image) as shard:
                episodes = map(shard.episode, range(shard.num_episodes))
                write_parquet(folder / "data" / f"{entry.shard:06d}.parquet", dataset.schema, episodes)
            task.advance()
        task.close()
        (folder / PICTURE_NAME).write_bytes(dataset_picture(dataset))
        (folder / CARD_NAME).write_text(dataset_card(DatasetFacts(config.repo, config.license, dataset)))
    licences = dict.fromkeys(each["licence"] for each in imports_of(dataset.spec))
    others = [licence for licence in licences if licence not in (None, config.license)]
    return [f"it was imported from what has another licence than the card: {', '.join(others)}"] if others else []


def _write_model(config: HubConfig, vae: Path) -> None:
    """The weights, the settings, what is known of their quality, and the card."""
    described, training, weights = describe(vae), read_training(vae), read_weights(vae)
    evaluation = read_evaluation(vae) or {}
    found = evaluation.get("heldout") if evaluation.get("vae_sha256") == described.sha256 else None
    heldout = found if isinstance(found, dict) else {}
    kept = [CONFIG_NAME, *((HELDOUT_NAME, RECONSTRUCTIONS_NAME) if heldout else ())]
    contents = {name: files.read_file(vae / name, MAX_FILE_BYTES) for name in kept}
    facts = ModelFacts(config.repo, config.license, described, training, heldout)
    with new_directory(config.out) as folder:
        (folder / WEIGHTS_NAME).write_bytes(weights)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / CARD_NAME).write_text(model_card(facts))


def _command(config: HubConfig, kind: Kind) -> str:
    words = ["hf", "upload", config.repo, str(config.out), ".", "--repo-type", kind]
    return shlex.join([*words, *(["--private"] if config.private else [])])
