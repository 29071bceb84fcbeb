"""A training in progress: the model, its optimiser, its data, and one step of it."""

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, AutoencoderConfig, Batch, Loss, frames_to_input, registry
from worldmodel_v.autoencoders.declared import require_round_trip
from worldmodel_v.data import (
    FrameBatch,
    FrameStream,
    Split,
    condition_reader,
    measure_condition,
    read_conditions,
    read_frames,
)
from worldmodel_v.data.chunks import find_chunks
from worldmodel_v.data.conditions import require_recorded
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.device import compiled
from worldmodel_v.storage import Rollouts
from worldmodel_v.storage.lock import Lock
from worldmodel_v.training.checkpoint import Checkpoint, save_checkpoint
from worldmodel_v.training.config import LoopConfig
from worldmodel_v.training.extra_settings import build_losses, require_usable
from worldmodel_v.training.extras import Extras
from worldmodel_v.training.optimizers import build_optimizer
from worldmodel_v.training.parts import Parts, num_parts
from worldmodel_v.training.schedules import learning_rate_factor, step_seed
from worldmodel_v.training.share import ALONE, Share

StepTerms = dict[str, torch.Tensor | float]
"""What one step reports: loss, grad_norm and the autoencoder's figures; tensors stay on the device until they are logged."""


class TensorBatch(NamedTuple):
    """A batch on the device."""

    x: torch.Tensor
    """float (B, C, H, W) in [0, 1], as `frames_to_input` makes it."""

    condition: torch.Tensor | None
    """float (B, K), or None."""


def require_trainable(config: LoopConfig, dataset: Rollouts) -> None:
    """Raise ConfigError, ModelNotUsable or ModelFailed unless the chosen autoencoder gives what it declares, fits the data and
    trains in the way asked for."""
    built = _autoencoder_config(config, dataset, condition_dim=len(config.condition))
    if config.checkpoint_activations:
        with _seeded(config.seed):
            registry.create(config.autoencoder, built).objective(recompute=True)
    if config.autoencoder not in registry.BUILT_IN:
        with _seeded(config.seed):
            require_round_trip(registry.create(config.autoencoder, built))
    with _seeded(config.seed):
        require_usable(config, functools.partial(registry.create, config.autoencoder, built))
    with dataset.open_shard(dataset.entries[0]) as shard:
        require_recorded(shard, config.condition)


def _autoencoder_config(config: LoopConfig, dataset: Rollouts, condition_dim: int) -> AutoencoderConfig:
    return registry.configure(
        config.autoencoder,
        config,
        frame_height=dataset.spec.frame_height,
        frame_width=dataset.spec.frame_width,
        condition_dim=condition_dim,
    )


class TrainingRun:
    """A training in progress: the model, its optimiser, the data and the step."""

    def __init__(
        self,
        config: LoopConfig,
        settings: dict[str, Any],
        device: torch.device,
        dataset: Rollouts,
        checkpoint: Checkpoint | None,
        share: Share = ALONE,
        lock: Lock | None = None,
    ) -> None:
        """`lock` is that of the directory, in the process that writes there."""
        self._share, self._lock = share, lock
        self.config, self.settings, self.device, self.dataset = config, settings, device, dataset
        self._split = Split(dataset, config.holdout_every)
        with _seeded(config.seed):
            self.model = self._fresh_model().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._condition = condition_reader(config.condition, self.model.config.condition_dim)
        with _seeded(config.seed):
            self.optimizer = build_optimizer(config.optimizer, self.model, config.learning_rate, config.weight_decay)
        self._learning_rates = [group["lr"] for group in self.optimizer.param_groups]
        with _seeded(config.seed):
            self.extras: Extras = build_losses(config, self.model, device, self._num_frames)
        """The losses beside the autoencoder's own, with their networks."""
        self.step = 0
        self.precisions: tuple[str, ...] = ()
        """What its steps were computed in, in the order of their first use."""
        if checkpoint is not None:
            self.restore(checkpoint)
            self.step = checkpoint.step
        self.saved_step = self.step
        """The step of the checkpoint; 0 if there is none."""
        self._noise = torch.Generator(device)

    @cached_property
    def _parts(self) -> Parts:
        can_split = self.model.in_parts and self.extras.in_parts and not self.config.compile  # the compiler splits by itself
        whole = self.device.type != "cpu" or not can_split
        number = 1 if whole else num_parts(self.config.batch_size // self._share.size)
        return Parts(self.model, number, self._objective_of, self._autocast)

    def _objective_of(self, model: Autoencoder) -> Callable[[Batch], Loss]:
        compile = functools.partial(compiled, device=self.device) if self.config.compile else None
        objective = model.objective(compile=compile, recompute=self.config.checkpoint_activations)
        return self.extras.around(model, objective, self._share)

    def _fresh_model(self) -> Autoencoder:
        """A model with new weights; the training episodes standardise its condition."""
        names = self.config.condition
        if not names:
            return self._built(condition_dim=0)
        mean_K, std_K = measure_condition(self.dataset, names, self.is_trained_on)
        model = self._built(condition_dim=len(mean_K))
        model.standardise_by(torch.from_numpy(mean_K), torch.from_numpy(std_K))
        return model

    def _built(self, condition_dim: int) -> Autoencoder:
        return registry.create(self.config.autoencoder, _autoencoder_config(self.config, self.dataset, condition_dim))

    def batches(self) -> Generator[TensorBatch]:
        """This process's share of the batches from the current step on."""
        stream = FrameStream(
            self.dataset,
            self.is_trained_on,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start=self.step,
            condition=self._condition,
        )
        rows = self._share.rows(self.config.batch_size)
        shares = ((frames[rows], None if beside is None else beside[rows]) for frames, beside in stream)
        tensors = ((self._to_tensor(frames), None if beside is None else self._to_tensor(beside)) for frames, beside in shares)
        with closing(prefetch(tensors, depth=4)) as batches:
            for frames, condition in batches:
                with self._parts.few_threads():
                    x_BCHW = frames_to_input(frames.to(self.device, non_blocking=True), self.config.channels)
                yield TensorBatch(x_BCHW, None if condition is None else condition.to(self.device, non_blocking=True))

    def _to_tensor(self, values: np.ndarray) -> torch.Tensor:
        """Runs in the prefetch thread. For CUDA it copies into pinned memory, so that the transfer is asynchronous."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def is_trained_on(self, episode_id: int) -> bool:
        return self._split.is_trained_on(episode_id)

    def _num_frames(self) -> int:
        """The number of frames to train on."""
        return find_chunks(self.dataset, self.is_trained_on).num_frames

    def is_held_out(self, episode_id: int) -> bool:
        return self._split.is_held_out(episode_id)

    def heldout_frames(self, limit: int) -> FrameBatch:
        """At most `limit` frames, evenly spaced over the held-out episodes, and their conditions."""
        frames = read_frames(self.dataset, self.is_held_out, limit)
        if self._condition is None:
            return FrameBatch(frames)
        return FrameBatch(frames, read_conditions(self.dataset, self.is_held_out, limit, self._condition))

    def take_step(self, batch: TensorBatch) -> StepTerms:
        """One optimiser step; returns its terms (tensors stay on the device until they are logged)."""
        self.precisions = tuple(dict.fromkeys([*self.precisions, self._precision]))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._parts.few_threads():
            terms = self._parts.backward(Batch(batch.x, batch.condition, self._draw_noise(), self.step, self._share.mean))
            gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            self._share.average([*gradients, *(value for value in terms.values() if isinstance(value, torch.Tensor))])
            grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            factor = self._schedule_learning_rate()
            self.optimizer.step()
            terms |= self.extras.learn(self.step, self._share, factor)
        self.step += 1
        return {**terms, "grad_norm": grad_norm}

    def _schedule_learning_rate(self) -> float:
        config = self.config
        factor = learning_rate_factor(self.step, config.schedule, config.warmup_steps, config.steps)
        for group, learning_rate in zip(self.optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        return factor

    def checkpoint_is_due(self) -> bool:
        """Whether the current step ends with a checkpoint and a held-out evaluation."""
        return self.step == self.config.steps or self.step % self.config.checkpoint_every == 0

    def checkpoint(self) -> Checkpoint:
        """The present state, copied."""
        return Checkpoint.of(self.step, self.settings, self.model, self.optimizer, self.extras, self.precisions)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore weights, moments and `precisions`, but not the step; raises ModelNotUsable if they do not fit."""
        checkpoint.restore(self.model, self.optimizer, self.extras)
        self.precisions = checkpoint.precisions

    def save(self) -> None:
        """Replace the checkpoint; raises WriteFailed, or DatasetBusy if the directory is another run's by now."""
        self.require_own_directory()
        save_checkpoint(self.config.out, self.checkpoint(), self.config.keep)
        self.saved_step = self.step

    def require_own_directory(self) -> None:
        """Raise DatasetBusy if the directory is another run's by now."""
        if self._lock is not None:
            self._lock.require_own()

    def _draw_noise(self) -> torch.Tensor | None:
        """This process's rows of the step's noise: float (B, *noise_shape), a function of the seed and the step."""
        if self.model.noise_shape is None:
            return None
        shape = self.config.batch_size, *self.model.noise_shape
        self._noise.manual_seed(step_seed(self.config.seed, self.step))
        noise = torch.randn(shape, generator=self._noise, device=self.device)
        return noise[self._share.rows(self.config.batch_size)]

    @property
    def _precision(self) -> str:
        wanted, on_cuda = self.config.precision, self.device.type == "cuda"
        return wanted if wanted != "auto" else "bf16" if on_cuda else "fp32"

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self._precision == "bf16" else nullcontext()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's random numbers within the block; afterwards the caller's random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
