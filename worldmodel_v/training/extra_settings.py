"""What the options of extra losses ask for: checked, and built."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.artifact import EXTRA_LOSSES
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option
from worldmodel_v.training.correlation.discriminated import DiscriminatedCorrelation
from worldmodel_v.training.correlation.sampled import SampledCorrelation
from worldmodel_v.training.extras import ExtraLoss, Extras, first_loss, require_drawn, require_reconstructions
from worldmodel_v.training.sharpness import perceptual
from worldmodel_v.training.sharpness.adversarial import Adversarial, require_last_layer
from worldmodel_v.training.sharpness.error_weights import WeightedErrors
from worldmodel_v.training.sharpness.perceptual import DISCRIMINATOR, OwnPerceptual, load_network

if TYPE_CHECKING:
    from worldmodel_v.training.config import LoopConfig

Estimator = Literal["sampling", "discriminator"]
"""How the total correlation is estimated."""


def require_losses(config: "LoopConfig") -> None:
    """Raise ConfigError if one of the options makes no sense beside the others."""
    judged, defaults = _has_discriminator(config), _defaults(config)
    if config.perceptual_network != DISCRIMINATOR and not config.perceptual:
        _refuse(config, "perceptual_network", f"is for {option('perceptual')}, which is 0")
    if config.adversarial_start != defaults["adversarial_start"] and not judged:
        _refuse(config, "adversarial_start", "no discriminator is trained")
    if judged and config.adversarial_start >= config.steps:
        raise ConfigError(
            f"leaves no steps of {config.steps} for the discriminator",
            field="adversarial_start",
            got=config.adversarial_start,
            remedy=f"lower it, or ask for more {option('steps')}",
        )
    if config.total_correlation_estimator != defaults["total_correlation_estimator"] and not config.total_correlation:
        _refuse(config, "total_correlation_estimator", f"is for {option('total_correlation')}, which is 0")
    if config.total_correlation and config.batch_size == 1:
        what = f"says nothing of how latents depend on each other, which {option('total_correlation')} asks for"
        raise ConfigError(what, field="batch_size", got=1, expected="at least 2", remedy="a few hundred are better")
    if config.compile and config.adversarial:
        what = f"cannot be combined with {option('adversarial')}, which needs gradients of the decoder's last layer alone"
        raise ConfigError(what, field="compile", got=True, remedy="leave it out")


def sources_of(config: "LoopConfig") -> dict[str, str]:
    """What is recorded with a network of the user's own; raises ConfigError if it cannot be loaded."""
    return perceptual.source_of(config.perceptual_network) if config.perceptual else {}


def without_effect(config: "LoopConfig") -> set[str]:
    """The options that change nothing in this training. They are not recorded, so a plain training is the one it was before
    there were any."""
    idle = {name for name in EXTRA_LOSSES if getattr(config, name) == _defaults(config)[name]}
    needed_by = {
        "adversarial_start": _has_discriminator(config),
        "perceptual_network": config.perceptual,
        "total_correlation_estimator": config.total_correlation,
    }
    return {name for name in idle if not needed_by.get(name)}


def build_losses(config: "LoopConfig", model: Autoencoder, device: torch.device, num_frames: Callable[[], int]) -> Extras:
    """The extra losses of a training on so many frames; fresh weights are drawn from PyTorch's default generator.

    Raises ConfigError.
    """
    losses: dict[str, ExtraLoss] = {}
    if config.total_correlation:
        losses["total_correlation"] = _correlation(config, model, device, num_frames)
    if config.error_weight != "none":
        losses["error_weight"] = WeightedErrors(config.error_weight)
    has_own = _has_own_network(config)
    if has_own:
        network = load_network(config.perceptual_network, model.config.frame_shape)
        losses["perceptual"] = OwnPerceptual(config.perceptual, network, device)
    if _has_discriminator(config):
        weights = config.adversarial, 0.0 if has_own else config.perceptual
        losses["discriminator"] = Adversarial(*weights, config.adversarial_start, config.channels, device)
    return Extras(losses)


def _correlation(config: "LoopConfig", model: Autoencoder, device: torch.device, num_frames: Callable[[], int]) -> ExtraLoss:
    if config.total_correlation_estimator == "sampling":
        return SampledCorrelation(config.total_correlation, num_frames())
    assert model.noise_shape is not None
    (num_latents,) = model.noise_shape
    return DiscriminatedCorrelation(config.total_correlation, num_latents, config.seed, device)


def require_usable(config: "LoopConfig", fresh_model: Callable[[], Autoencoder]) -> None:
    """Raise ConfigError unless the autoencoder can be trained with these losses; without any, none is made."""
    on_pictures = config.error_weight != "none" or config.adversarial or config.perceptual
    if not on_pictures and not config.total_correlation:
        return
    model = fresh_model()
    batch, loss = first_loss(model)
    if config.total_correlation:
        require_drawn(loss.drawn, model, batch)
    if on_pictures:
        frames = require_reconstructions(loss, model, batch).frames
        if config.adversarial:
            require_last_layer(model, frames)
    if _has_own_network(config):
        load_network(config.perceptual_network, model.config.frame_shape)


def _has_discriminator(config: "LoopConfig") -> bool:
    return config.adversarial > 0 or (config.perceptual > 0 and config.perceptual_network == DISCRIMINATOR)


def _has_own_network(config: "LoopConfig") -> bool:
    return config.perceptual > 0 and config.perceptual_network != DISCRIMINATOR


def _defaults(config: "LoopConfig") -> dict[str, Any]:
    return {each.name: each.default for each in fields(config) if each.name in EXTRA_LOSSES}


def _refuse(config: "LoopConfig", field: str, why: str) -> None:
    raise ConfigError(why, field=field, got=getattr(config, field), remedy="leave it out")
