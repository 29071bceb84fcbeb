"""What the options of the losses against blur ask for: checked, and built."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.artifact import EXTRA_LOSSES
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option
from worldmodel_v.training.extras import ExtraLoss, Extras, require_reconstructions
from worldmodel_v.training.sharpness import perceptual
from worldmodel_v.training.sharpness.adversarial import Adversarial, require_last_layer
from worldmodel_v.training.sharpness.error_weights import WeightedErrors
from worldmodel_v.training.sharpness.perceptual import DISCRIMINATOR, OwnPerceptual, load_network

if TYPE_CHECKING:
    from worldmodel_v.training.config import LoopConfig


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
    kept = {"adversarial_start"} if _has_discriminator(config) else set()
    return idle - (kept | ({"perceptual_network"} if config.perceptual else set()))


def build_losses(config: "LoopConfig", frame_shape: tuple[int, int], device: torch.device) -> Extras:
    """The extra losses of a training; fresh weights are drawn from PyTorch's default generator. Raises ConfigError."""
    losses: dict[str, ExtraLoss] = {}
    if config.error_weight != "none":
        losses["error_weight"] = WeightedErrors(config.error_weight)
    has_own = config.perceptual and config.perceptual_network != DISCRIMINATOR
    if has_own:
        losses["perceptual"] = OwnPerceptual(config.perceptual, load_network(config.perceptual_network, frame_shape), device)
    if _has_discriminator(config):
        weights = config.adversarial, 0.0 if has_own else config.perceptual
        losses["discriminator"] = Adversarial(*weights, config.adversarial_start, config.channels, device)
    return Extras(losses)


def require_usable(config: "LoopConfig", fresh_model: Callable[[], Autoencoder]) -> None:
    """Raise ConfigError unless the autoencoder can be trained with these losses; without any, none is made."""
    if config.error_weight == "none" and not config.adversarial and not config.perceptual:
        return
    model = fresh_model()
    made = require_reconstructions(model, model.objective())
    if config.adversarial:
        require_last_layer(model, made.frames)
    build_losses(config, model.config.frame_shape, torch.device("cpu"))


def _has_discriminator(config: "LoopConfig") -> bool:
    return config.adversarial > 0 or (config.perceptual > 0 and config.perceptual_network == DISCRIMINATOR)


def _defaults(config: "LoopConfig") -> dict[str, Any]:
    return {each.name: each.default for each in fields(config) if each.name in EXTRA_LOSSES}


def _refuse(config: "LoopConfig", field: str, why: str) -> None:
    raise ConfigError(why, field=field, got=getattr(config, field), remedy="leave it out")
