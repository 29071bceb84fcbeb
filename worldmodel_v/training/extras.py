"""Extra parts of a training: losses beside the autoencoder's own, and networks of theirs that are trained with it.

An `ExtraLoss` adds a term to what a step minimises; it gets the batch's reconstructions, or its latents. If it has a network of
its own, this learns after the autoencoder's step, from the same batch (see `adversary`), and its weights and its optimiser's
moments are tensors of the checkpoint, under `extra.`. So a training with extra losses resumes as exactly as one without. The
finished autoencoder has none of it.

Several terms are added in the given order, so a term that is weighed against the others comes last. All are computed in
float32, for any precision of the autoencoder.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel_v.autoencoders import Autoencoder, Batch, Drawn, Loss, Reconstructed
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option
from worldmodel_v.training.parts import Objective, Terms
from worldmodel_v.training.share import ALONE, Share


class Made(NamedTuple):
    """A batch, and what the autoencoder made of it."""

    batch: Batch
    reconstructed: Callable[[], Reconstructed]
    """Gives the reconstructions, which are computed once."""

    minimised: Tensor
    """0-dim: the loss with the terms that were added so far."""

    model: Autoencoder
    drawn: Drawn | None = None
    """Of this process's frames."""

    share: Share = ALONE
    """Which part of the batch this process has."""

    @property
    def frames(self) -> Tensor:
        """float32 (B, C, H, W) in [0, 1], with gradients."""
        return self.reconstructed().frames.float()

    @property
    def errors(self) -> Tensor:
        """float32 (B, C, H, W): see `Reconstructed`."""
        return self.reconstructed().errors.float()


class Term(NamedTuple):
    """What an extra loss adds to a step."""

    value: Tensor
    """0-dim, a mean over the batch, in the units of `Loss.minimised`."""

    figures: Terms
    """What is recorded."""


class ExtraLoss(ABC):
    """A term beside the autoencoder's loss, and the network that it trains, if it does."""

    in_parts: bool = False
    """Whether several threads may compute the term, each on a part of the batch."""

    shown: tuple[str, ...] = ()
    """Its figures that are shown during training."""

    start: int = 0
    """The steps that are done without it."""

    @abstractmethod
    def term(self, made: Made) -> Term:
        """What is added to the loss of a batch."""

    def learn(self, share: Share, factor: float) -> Terms:
        """Let the network of this loss take its step for the last batch of `term`; `factor` is that of the learning rate."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """All of its state that changes."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave; raises ValueError or RuntimeError if they do not fit."""
        if tensors:
            raise ValueError(f"{next(iter(tensors))} is unknown")


class Extras:
    """All extra losses of a training, by name."""

    def __init__(self, losses: dict[str, ExtraLoss] | None = None) -> None:
        self._losses = losses or {}

    def __bool__(self) -> bool:
        return bool(self._losses)

    @property
    def in_parts(self) -> bool:
        """Whether threads may compute all terms."""
        return all(loss.in_parts for loss in self._losses.values())

    @property
    def shown(self) -> Sequence[str]:
        """The figures that are shown during training."""
        return [name for loss in self._losses.values() for name in loss.shown]

    def around(self, model: Autoencoder, objective: Objective, share: Share = ALONE) -> Objective:
        """The objective with all terms; without extra losses the objective itself."""
        return (lambda batch: self._loss(model, batch, objective(batch), share)) if self._losses else objective

    def _loss(self, model: Autoencoder, batch: Batch, plain: Loss, share: Share) -> Loss:
        """`loss` stays the autoencoder's own; what is minimised is recorded as `minimised`."""
        reconstructed = functools.cache(lambda: require_reconstructions(plain, model, batch))
        made = Made(batch, reconstructed, plain.minimised, model, plain.drawn, share)
        figures = {"loss": plain.minimised, **plain.figures}
        for loss in self._begun(batch.step):
            value, found = loss.term(made)
            figures |= found
            made = made._replace(minimised=made.minimised + value)
        return Loss(made.minimised, {**figures, "minimised": made.minimised})

    def learn(self, step: int, share: Share, factor: float) -> Terms:
        """The steps of the losses' networks after the autoencoder's step number `step`; returns their figures."""
        figures: Terms = {}
        for loss in self._begun(step):
            figures |= loss.learn(share, factor)
        return figures

    def _begun(self, step: int) -> list[ExtraLoss]:
        return [loss for loss in self._losses.values() if step >= loss.start]

    def tensors(self) -> dict[str, Tensor]:
        """The state of all, for the checkpoint."""
        return {f"{name}.{key}": value for name, loss in self._losses.items() for key, value in loss.tensors().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave; raises ValueError or RuntimeError if they do not fit."""
        if unknown := [key for key in tensors if key.partition(".")[0] not in self._losses]:
            raise ValueError(f"extra.{unknown[0]} is unknown")
        for name, loss in self._losses.items():
            loss.restore(under(f"{name}.", tensors))


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with this, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def first_loss(model: Autoencoder) -> tuple[Batch, Loss]:
    """A batch of two black frames, and the loss of it."""
    config = model.config
    x = torch.zeros(2, config.channels, *config.frame_shape)
    noise = None if model.noise_shape is None else torch.zeros(2, *model.noise_shape)
    batch = Batch(x, model.typical_condition(2), noise, 0, lambda mean: mean)
    model.eval()
    return batch, model.objective()(batch)


def require_reconstructions(loss: Loss, model: Autoencoder, batch: Batch) -> Reconstructed:
    """The reconstructions of a loss; raises ConfigError unless losses on pictures can use them."""
    if loss.reconstructed is None:
        raise ConfigError(
            "its loss gives no reconstructions (Loss.reconstructed), so nothing can be added to it",
            field="autoencoder",
            got=model.kind,
            remedy="leave the losses on pictures out, or let it give them",
        )
    made = loss.reconstructed()
    for name, values in made._asdict().items():
        if values.shape != batch.x.shape or not values.requires_grad:
            expected = f"{name} of the shape {tuple(batch.x.shape)}, with gradients"
            got = f"the shape {tuple(values.shape)}, {'with' if values.requires_grad else 'without'} gradients"
            raise ConfigError(f"its Loss.reconstructed gives {got}", field="autoencoder", got=model.kind, expected=expected)
    return made


def require_drawn(drawn: Drawn | None, model: Autoencoder, batch: Batch) -> Drawn:
    """The latents of a loss themselves; raises ConfigError unless losses on latents can use them."""
    if drawn is None:
        raise ConfigError(
            "its latents are no vector of real numbers that are independent, given the frame (Loss.drawn), so their total "
            "correlation cannot be measured",
            field="autoencoder",
            got=model.kind,
            remedy=f"leave {option('total_correlation')} out, or train {option('autoencoder', 'gaussian')}",
        )
    tensors = {"z": drawn.z, **{f"parameters[{i}]": each for i, each in enumerate(drawn.parameters)}}
    shape = (len(batch.x), 0) if batch.noise is None else tuple(batch.noise.shape)
    for name, values in tensors.items():
        if tuple(values.shape) != shape or not values.requires_grad:
            got = f"{name} of the shape {tuple(values.shape)}, {'with' if values.requires_grad else 'without'} gradients"
            expected = f"the shape of its noise, {shape}, with gradients"
            raise ConfigError(f"its Loss.drawn has {got}", field="autoencoder", got=model.kind, expected=expected)
    if len(shape) != 2 or shape[1] < 2:
        raise ConfigError(
            f"its latents have the shape {shape[1:]} for a frame, and only several numbers in a vector can be dependent",
            field="autoencoder",
            got=model.kind,
            remedy=f"leave {option('total_correlation')} out",
        )
    return drawn
