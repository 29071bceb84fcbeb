"""A training in progress: the model, its optimiser, its data, and one step of it."""

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch

from worldmodel_v.data import FrameStream, is_held_out, read_frames
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.models import ConvVAE, VAEConfig, elbo, frames_to_input
from worldmodel_v.storage import Dataset
from worldmodel_v.train.checkpoint import Checkpoint, save_checkpoint
from worldmodel_v.train.compute import Objective, Recomputed, compiled
from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.schedules import annealed_beta

StepTerms = dict[str, torch.Tensor | float]
"""loss, reconstruction, kl, grad_norm, beta: what one step reports; tensors stay on the device until they are logged."""


class TrainingRun:
    """A training in progress: the model, its optimiser, the data and the step."""

    def __init__(
        self,
        config: TrainConfig,
        settings: dict[str, Any],
        device: torch.device,
        dataset: Dataset,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.settings, self.device, self.dataset = config, settings, device, dataset
        torch.manual_seed(config.seed)
        vae_config = VAEConfig(
            frame_size=dataset.spec["frame_size"], latent_dim=config.latent_dim, likelihood=config.likelihood
        )
        self.model = ConvVAE(vae_config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        if checkpoint is not None:
            checkpoint.restore(self.model, self.optimizer)
            self.step = checkpoint.step
        self._noise = torch.Generator(device)
        self._network = Recomputed(self.model) if config.checkpoint_activations else self.model

    @cached_property
    def _objective(self) -> Objective:
        return compiled(elbo, self.device) if self.config.compile else elbo

    def batches(self) -> Generator[torch.Tensor]:
        """The batches from the present step on: float (B, 3, S, S) on the device."""
        stream = FrameStream(
            self.dataset, self.is_trained_on, batch_size=self.config.batch_size, seed=self.config.seed, start=self.step
        )
        tensors = (self._to_tensor(batch.frames) for batch in stream)
        with closing(prefetch(tensors, depth=4)) as batches:
            for frames_BHWC in batches:
                yield frames_to_input(frames_BHWC.to(self.device, non_blocking=True))

    def _to_tensor(self, frames_BHWC: np.ndarray) -> torch.Tensor:
        """Runs in the prefetch thread: for CUDA the copy into pinned memory, from where the transfer is asynchronous."""
        frames = torch.from_numpy(frames_BHWC)
        return frames.pin_memory() if self.device.type == "cuda" else frames

    def is_trained_on(self, episode_id: int) -> bool:
        return not is_held_out(episode_id, self.config.holdout_every)

    def heldout_frames(self, limit: int) -> np.ndarray:
        """uint8 (n, S, S, 3), evenly spaced over the held-out episodes."""
        return read_frames(self.dataset, lambda episode: is_held_out(episode, self.config.holdout_every), limit)

    def take_step(self, x_BCHW: torch.Tensor) -> StepTerms:
        """One optimiser step; returns its terms (tensors stay on the device until they are logged)."""
        config = self.config
        beta = annealed_beta(self.step, config.beta, config.beta_warmup_steps)
        self._noise.manual_seed(_noise_seed(config.seed, self.step))
        self.model.train()
        with self._autocast():
            terms = self._objective(self._network, x_BCHW, self._noise)
        loss = terms.loss(beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return {
            "loss": loss.detach(),
            "reconstruction": terms.reconstruction.detach(),
            "kl": terms.kl.detach(),
            "grad_norm": grad_norm,
            "beta": beta,
        }

    def save(self) -> None:
        save_checkpoint(self.config.out, self.step, self.settings, self.model, self.optimizer)

    def _autocast(self) -> AbstractContextManager:
        wanted = self.config.precision
        if wanted == "auto":
            wanted = "bf16" if self.device.type == "cuda" else "fp32"
        return torch.autocast(self.device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()


def _noise_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
