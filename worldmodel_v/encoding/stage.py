"""The whole run: find the rollout shards that are not encoded yet, encode them, and commit each when it is done.

Latent shard i is made only from rollout shard i and records its hash (`source_sha256`). So comparing two index files finds
latents whose rollouts were replaced.
"""

import functools
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from worldmodel_v.autoencoders import Autoencoder, Trained, artifact, registry
from worldmodel_v.compiler import compilation_watched
from worldmodel_v.data.fit import require_fit
from worldmodel_v.device import resolve_device
from worldmodel_v.encoding.config import EncodeConfig
from worldmodel_v.encoding.encoder import EncoderSettings, EncodeTask, ShardEncoder, Source, shard_encoder
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.execution import Executor, map_tasks
from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress, begin
from worldmodel_v.schema import latent_schema
from worldmodel_v.selection import open_rollouts
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import DatasetWriter, IndexEntry, Latents, Rollouts
from worldmodel_v.surface import taken_along
from worldmodel_v.telemetry import Tally
from worldmodel_v.words import counted


@dataclass(frozen=True, kw_only=True)
class EncodeReport:
    """What a run of `encode` found and did."""

    out: Path
    """The latent dataset's directory."""

    episodes: int
    """Episodes in the latent dataset after the run."""

    rows: int
    """Rows in it after the run."""

    new_rows: int
    """Rows that this run encoded; 0 if there was nothing to do."""


@plain_tensors()
@raised_again_if_lost()
def encode(config: EncodeConfig, progress: Progress | None = None, executor: Executor | None = None) -> EncodeReport:
    """Write the latents of every episode of `config.data` to `config.out`; continues existing latents.

    Raises UsageError (DatasetNotUsable, ModelNotUsable, OutputNotUsable, ShardDamaged, …) before it
    writes anything that they concern, and WorkerLost or WriteFailed later; everything committed by then stays.

    An `executor` of your own replaces `config.workers` and their cluster. Each of its workers encodes one shard at a time from
    the shard's bytes, with as many threads as PyTorch has there.
    """
    progress = shown(progress)
    rollouts = open_rollouts(config.data, progress)
    weights = artifact.read_weights(config.vae)
    vae = artifact.from_bytes(weights, str(config.vae), config.autoencoder)
    require_fit(vae, rollouts, config.vae, "train a VAE on these rollouts")
    _require_dtype(config.dtype, vae.model)
    if config.precision != "fp32":
        vae.model.for_inference(torch.device("cpu"), config.precision)  # refused before anything is written
    if executor is None and config.workers == 0:
        resolve_device(config.device)
    spec = _latent_spec(config, rollouts, vae)
    settings = EncoderSettings(
        weights=weights,
        autoencoder=config.autoencoder,
        spec_hash=spec.hash,
        schema=spec.schema,
        source_schema=rollouts.schema,
        vae_sha256=vae.sha256,
        device=config.device,
        precision=config.precision,
        compile=config.compile,
        batch_size=config.batch_size,
        autoencoder_sha256=spec.autoencoder_sha256,
    )
    with DatasetWriter(config.out, spec) as writer:
        require_current(writer.dataset(), rollouts)
        committed = {entry.shard for entry in writer.entries}
        missing = [entry for entry in rollouts.entries if entry.shard not in committed]
        writer.announce("encode", rollouts.num_episodes)
        new_rows = _encode_shards(config, settings, rollouts, missing, executor, writer, progress)
        latents = writer.dataset()
    report = EncodeReport(out=config.out, episodes=latents.num_episodes, rows=latents.num_rows, new_rows=new_rows)
    progress.event("finished", f"encode: {counted(report.rows, 'latent')} ({new_rows} new)", stage="encode", **asdict(report))
    return report


def require_current(latents: Latents, rollouts: Rollouts) -> None:
    """Raise DatasetNotUsable if a latent shard was not made from the current rollout shard of its number."""
    sources = {entry.shard: entry for entry in rollouts.entries}
    for entry in latents.entries:
        source = sources.get(entry.shard)
        if source is None or rollouts.hashed(source).sha256 != entry.source_sha256:
            place = rollouts.name if source is None else f"the {rollouts.shard_path(source)} that is there"
            raise DatasetNotUsable(
                f"was not encoded from {place}",
                where=latents.path / entry.name,
                remedy="encode into a new directory",
            )


def _require_dtype(dtype: str, model: Autoencoder) -> None:
    """Raise ConfigError if another dtype than the default changes nothing."""
    columns, _ = model.latents("float32")
    if dtype != "float32" and model.latents(dtype)[0] == columns:
        stored = ", ".join(f"{column.name} as {column.dtype}" for column in columns)
        raise ConfigError(f"{model.kind} stores {stored} in any case", field="dtype", got=dtype, remedy="leave it out")


def _latent_spec(config: EncodeConfig, rollouts: Rollouts, vae: Trained[Autoencoder]) -> LatentSpec:
    trained_on = vae.trained_on
    return LatentSpec(
        schema=latent_schema(rollouts.schema, *vae.model.latents(config.dtype)),
        vae_sha256=vae.sha256,
        source_spec_hash=rollouts.spec_hash,
        dtype=config.dtype,
        precision=config.precision,
        source=rollouts.spec.settings(),
        holdout_every=trained_on.holdout_every if trained_on else None,
        trained_on=trained_on.collections if trained_on else (),
        autoencoder_sha256=registry.sha256_of_source(vae.model.kind),
    )


def _encode_shards(
    config: EncodeConfig,
    settings: EncoderSettings,
    rollouts: Rollouts,
    missing: list[IndexEntry],
    executor: Executor | None,
    writer: DatasetWriter[LatentSpec],
    progress: Progress,
) -> int:
    if not missing:
        return 0
    total = rollouts.num_rows
    done = total - sum(entry.num_rows for entry in missing)
    task = begin(progress, "encode", config.out, writer.spec.hash, total=total, unit="frames", done=done)
    tally = Tally("encode", config.out, progress, shards_left=len(missing))
    executor = executor or config.executor(len(missing))
    if executor is None:
        encoded = _here(settings, rollouts, missing)
    else:
        encoded = _by_workers(settings, rollouts, missing, executor, progress, tally)
    with closing(task), closing(encoded), compilation_watched(progress):
        for source, image in encoded:
            entry = writer.commit(source.shard, image)
            tally.committed(entry)
            task.advance(entry.num_rows, **tally.facts())
    return sum(entry.num_rows for entry in missing)


Encoded = Generator[tuple[IndexEntry, bytes]]
"""The index entry of a rollout shard, and the bytes of its latent shard."""


def _here(settings: EncoderSettings, rollouts: Rollouts, missing: list[IndexEntry]) -> Encoded:
    """Encode in this process, from the files."""
    with ShardEncoder(settings) as encoder, closing(encoder.encode(_sources(rollouts, missing))) as latents:
        yield from latents


def _by_workers(
    settings: EncoderSettings,
    rollouts: Rollouts,
    missing: list[IndexEntry],
    executor: Executor,
    progress: Progress,
    tally: Tally,
) -> Encoded:
    """Have workers encode, which are sent the shards' bytes."""
    setup = taken_along(functools.partial(shard_encoder, settings))
    for task, image in map_tasks(executor, setup, _tasks(rollouts, missing), progress, tally):
        yield task.entry, image


def _sources(rollouts: Rollouts, missing: list[IndexEntry]) -> Iterator[Source]:
    """The shards, each opened when the encoder asks for it; raises ShardDamaged."""
    for entry in missing:
        shard = rollouts.open_verified(entry)
        yield Source(rollouts.hashed(entry), shard)


def _tasks(rollouts: Rollouts, missing: list[IndexEntry]) -> Iterator[EncodeTask]:
    """The shards' bytes, each read when a worker is free; raises ShardDamaged."""
    for entry in missing:
        image = rollouts.image(entry)
        rollouts.open_shard(entry, image).close()
        yield EncodeTask(rollouts.hashed(entry), image, str(rollouts.shard_path(entry)))
