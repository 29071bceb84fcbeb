"""Rollout shards in, the bytes of latent shards out; several shards are in progress at once. It uses no Ray and writes nothing.

Legend: N rows of a shard, B rows of a batch, H, W frame, C channels, K condition.

A batch is a number of stored chunks (one, on a CPU), independent of episodes. One thread does all the work of a batch: it reads
the compressed chunks, decompresses them into its own memory (so they are in its core's cache), encodes them, and stores the
rows. The thread that finishes a shard's last batch builds the latent shard. There are as many threads as cores. They do not
wait for each other, and there is no queue between reading and computing. One more thread opens and checks the next shard,
and the caller's thread commits the previous one. Up to three shards are in progress, so the threads always have work. Memory
is one batch for each thread, and the latents and compressed columns of three shards, for episodes of any length.

The content of a batch depends only on the shard, and one thread computes every batch. So the number of threads and workers
changes no byte.

On CUDA the threads take turns at two streams. So the copy of one batch and the kernels of another can overlap, and the device
has the next batch queued before it finishes one. The gain is not measured yet (docs/benchmarks/gpu.md).
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import torch

from worldmodel_v.autoencoders import Latents, artifact, registry
from worldmodel_v.autoencoders.declared import require_rows
from worldmodel_v.data import condition_reader
from worldmodel_v.device import batch_in_memory, num_cores, resolve_device
from worldmodel_v.encoding.inference import inference_encoder, keep_freed_memory, reproducible_arithmetic
from worldmodel_v.errors import ModelFailed, ModelNotUsable
from worldmodel_v.records import Episode
from worldmodel_v.schema import Schema
from worldmodel_v.storage import IndexEntry, Shard, build_shard
from worldmodel_v.storage.layout import PIXEL_CHUNK_ROWS
from worldmodel_v.surface import option

SHARDS_UNDER_WAY = 3
STREAMS = 2
MAX_CUDA_THREADS = 16
BATCH_SIZES = {"cpu": PIXEL_CHUNK_ROWS, "cuda": 1024}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What a worker needs to know to encode."""

    weights: bytes
    """The content of `vae.safetensors`."""

    autoencoder: str | None
    """The user's own autoencoder that may be loaded from them: see `artifact.load`."""

    spec_hash: str
    """The hash of the latent dataset's spec."""

    schema: Schema
    """The schema of the latent dataset."""

    source_schema: Schema
    """The schema of the rollouts."""

    vae_sha256: str
    device: str
    precision: str
    compile: bool
    batch_size: int | None

    autoencoder_sha256: str = ""
    """Of the code of a user's own autoencoder: see `registry.sha256_of_source`."""


@dataclass(frozen=True)
class Source:
    """An open rollout shard to encode."""

    entry: IndexEntry
    shard: Shard


@dataclass(frozen=True)
class EncodeTask:
    """A rollout shard to encode, with its bytes: a worker needs no access to the dataset's disk."""

    entry: IndexEntry
    image: bytes
    source: str
    """Where the bytes come from, for errors."""

    def __str__(self) -> str:
        return f"shard {self.entry.shard}"

    def open(self, schema: Schema) -> Source:
        """Open the bytes as a rollout shard of this schema; raises ShardDamaged."""
        return Source(self.entry, Shard.from_bytes(self.image, schema, self.source))


def shard_encoder(settings: EncoderSettings) -> Callable[[EncodeTask], bytes]:
    """What a worker does: the bytes of a rollout shard in, the bytes of its latent shard out."""
    encoder = ShardEncoder(settings)

    def encode_shard(task: EncodeTask) -> bytes:
        ((_, image),) = encoder.encode([task.open(settings.source_schema)])
        return image

    return encode_shard


@dataclass
class _UnderWay:
    """A shard whose batches are being encoded."""

    source: Source
    latents: dict[str, np.ndarray]
    """The autoencoder's columns, which the batches fill."""

    batches_left: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    batches: list[Future[bytes | None]] = field(default_factory=list)
    """The last batch to finish gives the bytes of the latent shard, the others None."""


class ShardEncoder:
    """Encodes shard after shard; use it as a context manager, which ends its threads."""

    def __init__(self, settings: EncoderSettings) -> None:
        """Raises ConfigError if the device cannot be used or compiled for, ModelNotUsable if the weights are damaged, or if the
        code of a user's own autoencoder is another one here."""
        device = resolve_device(settings.device)
        model = artifact.from_bytes(settings.weights, "the autoencoder", settings.autoencoder).model.to(device)
        if registry.sha256_of_source(model.kind) != settings.autoencoder_sha256:
            what, remedy = "has other code here than where encoding began", "install the same on every node"
            raise ModelNotUsable(what, where=f"autoencoder {model.kind}", remedy=remedy)
        self._settings, self._config, self._device, self._on_cuda = settings, model.config, device, device.type == "cuda"
        self._columns = settings.schema.by_role("latent")
        self._condition = condition_reader(model.config.condition, model.config.condition_dim)
        self._encode = inference_encoder(model, device, settings.precision, compile=settings.compile)
        wanted = settings.batch_size or BATCH_SIZES[device.type]
        self._batch_size = -(-wanted // PIXEL_CHUNK_ROWS) * PIXEL_CHUNK_ROWS
        num_threads = min(num_cores(), MAX_CUDA_THREADS) if self._on_cuda else torch.get_num_threads()
        self._streams: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(STREAMS if self._on_cuda else num_threads):
            self._streams.put(torch.cuda.Stream(device) if self._on_cuda else None)
        if self._on_cuda:
            torch.cuda.synchronize(device)  # the weights must be on the device before another stream reads them
        keep_freed_memory()
        self._of_this_thread = threading.local()
        self._threads = ThreadPoolExecutor(num_threads, "encode", initializer=torch.set_num_threads, initargs=(1,))
        self._opener = ThreadPoolExecutor(1, "open")
        if settings.compile:  # once, and with the threads' own settings, because the compiled code assumes them
            with self._in_memory():
                frames = torch.zeros((self._batch_size, *model.config.frame_shape, 3), dtype=torch.uint8)
            self._threads.submit(self._encode_batch, frames, torch.zeros(len(frames), model.config.condition_dim)).result()

    def encode(self, sources: Iterable[Source]) -> Generator[tuple[IndexEntry, bytes]]:
        """Yield the bytes of each source's latent shard, in order; closes the sources.

        A thread takes up to four sources ahead of what is yielded. Raises ShardDamaged, ModelNotUsable, or what
        `sources` raises, after the shards before it. A caller that stops early waits only for the batches that are being
        computed and the shard that is being opened.
        """
        under_way: deque[_UnderWay] = deque()
        intra_op_threads = torch.get_num_threads()
        remaining = iter(sources)
        ahead = self._opener.submit(_taken, remaining)
        try:
            with reproducible_arithmetic():
                while isinstance(source := ahead.result(), Source):
                    ahead = self._opener.submit(_taken, remaining)
                    under_way.append(self._begin(source))
                    if len(under_way) == SHARDS_UNDER_WAY:
                        yield self._finish(under_way.popleft())
                while under_way:
                    yield self._finish(under_way.popleft())
                if source is not None:
                    raise source
        finally:
            for shard in under_way:
                self._abandon(shard)
            if not ahead.cancel() and isinstance(source := ahead.result(), Source):
                source.shard.close()
            torch.set_num_threads(intra_op_threads)  # the setting of the threads would also apply to later threads

    def close(self) -> None:
        """End the threads."""
        self._opener.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # One shard

    def _begin(self, source: Source) -> _UnderWay:
        chunks_per_batch = self._batch_size // source.shard.chunk_rows
        firsts = range(0, source.shard.num_pixel_chunks, chunks_per_batch)
        num_rows = source.shard.num_rows
        latents = {column.name: np.empty((num_rows, *column.row_shape), column.dtype) for column in self._columns}
        shard = _UnderWay(source, latents, batches_left=len(firsts))
        for first in firsts:
            last = min(first + chunks_per_batch, source.shard.num_pixel_chunks)
            shard.batches.append(self._threads.submit(self._work_on, shard, range(first, last)))
        return shard

    def _finish(self, shard: _UnderWay) -> tuple[IndexEntry, bytes]:
        """Wait for a shard's batches and its latent shard."""
        try:
            images = [batch.result() for batch in shard.batches]
        finally:
            self._abandon(shard)
        return shard.source.entry, next(image for image in images if image is not None)

    def _abandon(self, shard: _UnderWay) -> None:
        """Cancel batches that have not started, wait for those that have, and close the shard."""
        for batch in shard.batches:
            batch.cancel()
        for batch in shard.batches:
            if not batch.cancelled():
                batch.exception()
        shard.source.shard.close()

    # One batch, in a thread

    def _work_on(self, shard: _UnderWay, chunks: range) -> bytes | None:
        """Encode some chunks; returns the bytes of the latent shard if they were the last to be encoded."""
        self._encode_chunks(shard, chunks)
        with shard.lock:
            shard.batches_left -= 1
            is_last = shard.batches_left == 0
        return self._build(shard) if is_last else None

    def _build(self, shard: _UnderWay) -> bytes:
        rollouts = shard.source.shard
        attributes = {"vae_sha256": self._settings.vae_sha256, "source_sha256": shard.source.entry.sha256}
        sequences = [self._sequence(rollouts, position, shard.latents) for position in range(rollouts.num_episodes)]
        return build_shard(sequences, spec_hash=self._settings.spec_hash, attributes=attributes, source=rollouts)

    def _sequence(self, shard: Shard, position: int, latents: dict[str, np.ndarray]) -> Episode:
        """The latents of one episode: the rollout's rows, with the autoencoder's columns instead of the frames."""
        start = int(shard.ep_offset[position])
        stop = start + int(shard.ep_len[position])
        columns = {
            column.name: latents[column.name][start:stop] if column.role == "latent" else shard.rows(column.name, start, stop)
            for column in self._settings.schema.data_columns
        }
        return Episode(
            schema=self._settings.schema,
            episode_id=int(shard.episode_ids[position]),
            seed=int(shard.seeds[position]),
            policy=shard.policies[position],
            columns=columns,
            origin=shard.origins[position] if shard.origins else None,
        )

    def _encode_chunks(self, shard: _UnderWay, chunks: range) -> None:
        """Fill in the latents of the rows of some chunks."""
        layout = shard.source.shard.pixel_layout
        start, stop = chunks.start * layout.chunk_rows, min(chunks.stop * layout.chunk_rows, layout.num_rows)
        frames = self._frame_memory(layout.frame_shape)
        decoded = frames.numpy()
        for number in chunks:
            first = number * layout.chunk_rows - start
            shard.source.shard.pixel_chunk(number, decoded[first : first + layout.chunk_rows])
        num_rows = stop - start
        num_encoded = self._batch_size if self._settings.compile else num_rows  # another number would compile again
        condition = torch.zeros((num_encoded, self._config.condition_dim))
        if self._condition is not None:
            condition[:num_rows] = torch.from_numpy(self._condition(shard.source.shard, start, stop))
        latents = self._encode_batch(frames[:num_encoded], condition)
        for column in self._columns:
            require_rows(column, latents, num_encoded)
            try:
                with np.errstate(over="raise"):
                    shard.latents[column.name][start:stop] = latents[column.name][:num_rows].numpy()
            except FloatingPointError:
                what, remedy = f"{column.name} has values that {column.dtype} cannot hold", f"use {option('dtype', 'float32')}"
                raise ModelFailed(what, where=shard.source.shard.source, remedy=remedy) from None

    def _encode_batch(self, frames: torch.Tensor, condition: torch.Tensor) -> Latents:
        """The latents on the CPU. When they are there, the device no longer needs the frames."""
        stream = self._streams.get()
        try:
            with self._in_memory(), torch.cuda.stream(stream):
                latents = self._encode(frames, condition if self._condition else None)
                return {name: rows.cpu() for name, rows in latents.items()}
        finally:
            self._streams.put(stream)

    def _frame_memory(self, frame_shape: tuple[int, int, int]) -> torch.Tensor:
        """This thread's uint8 (B, H, W, C), in pinned memory if it is copied to a GPU."""
        memory = getattr(self._of_this_thread, "frames", None)
        if memory is None or memory.shape[1:] != frame_shape:
            with self._in_memory():
                memory = torch.zeros((self._batch_size, *frame_shape), dtype=torch.uint8, pin_memory=self._on_cuda)
            self._of_this_thread.frames = memory
        return memory

    def _in_memory(self) -> AbstractContextManager:
        return batch_in_memory(self._settings.batch_size or self._batch_size, self._device)


def _taken(sources: Iterator[Source]) -> Source | Exception | None:
    """The next source, None after the last one, or the exception that was raised instead."""
    try:
        return next(sources, None)
    except Exception as error:
        return error
