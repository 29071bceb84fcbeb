"""`--adversarial`: a discriminator is trained beside the autoencoder, and the decoder learns to deceive it.

    minimised = rec + weight λ gan,   gan = - mean D(x̂),   λ = |∇ rec| / (|∇ gan| + δ)

rec is all else that is minimised. ∇ are the gradients of the weights of the decoder's last layer, so a weight of 1 gives both
the same say there, whatever their units. Source: Esser et al. 2021 (arXiv:2012.09841), equations 6 and 7, with δ = 1e-6 and, as
in their code, at most 1e4 for λ. (A KL does not depend on the decoder, so it is not part of ∇ rec.) Gradients are those of the
whole batch, for any number of processes.

The discriminator's features are also what `--perceptual` compares by default (Larsen et al. 2016, arXiv:1512.09300). It learns
from the same reconstructions, with β = (0.5, 0.9) and a learning rate of 2e-4 (as Isola et al. 2017). Its gradients are not
clipped: the hinge loss and the spectral norms bound them. `max_grad_norm` holds for the autoencoder's gradients of the sum of
all terms.
"""

import torch
from torch import Tensor, nn

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.errors import ConfigError
from worldmodel_v.training.adversary import Adversary
from worldmodel_v.training.extras import Made, Term
from worldmodel_v.training.parts import Terms
from worldmodel_v.training.sharpness.discriminator import Discriminator, discriminator_loss, generator_loss
from worldmodel_v.training.sharpness.perceptual import feature_distance

LEARNING_RATE = 2e-4
BETAS = (0.5, 0.9)
DELTA = 1e-6
MAX_ADAPTIVE_WEIGHT = 1e4


class Adversarial(Adversary[Discriminator]):
    """The discriminator, and the terms that it gives: the generator's loss and the distance of features."""

    figure = "discriminator_loss"

    def __init__(self, weight: float, perceptual: float, start: int, channels: int, device: torch.device) -> None:
        """Either weight may be 0. Fresh weights are drawn from PyTorch's default generator."""
        self._weight, self._perceptual, self.start = weight, perceptual, start
        self.shown = ("perceptual", "discriminator_loss") if perceptual else ("discriminator_loss",)
        network = Discriminator(channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network, LEARNING_RATE, BETAS)
        self._pictures: tuple[Tensor, Tensor] | None = None

    def term(self, made: Made) -> Term:
        """Both terms; keeps the pictures for the discriminator's step."""
        self._pictures = made.batch.x, made.frames.detach()
        network, frames = self._fixed(), made.frames
        judged = network(frames)
        value = made.minimised.new_zeros(())
        figures: Terms = {}
        if self._perceptual:
            with torch.no_grad():
                real = network(made.batch.x).features
            distance = feature_distance(real, judged.features, frames[0].numel())
            value, figures["perceptual"] = self._perceptual * distance, distance
        if self._weight:
            gan = generator_loss(judged.scores)
            weight = self._weight * adaptive_weight(made, made.minimised + value, gan)
            value = value + weight * gan
            figures |= {"generator_loss": gan, "adversarial_weight": weight}
        return Term(value, figures)

    def _own_loss(self) -> Tensor:
        """The hinge loss of the last pictures."""
        assert self._pictures is not None
        (real, made), self._pictures = self._pictures, None
        return discriminator_loss(*self._network(torch.cat([real, made])).scores.chunk(2))


def adaptive_weight(made: Made, rec: Tensor, gan: Tensor) -> Tensor:
    """λ: 0-dim, without gradient."""
    weight = last_layer(made.model)
    with torch.autocast(rec.device.type, enabled=False):
        gradients = [torch.autograd.grad(each, weight, retain_graph=True)[0].float() for each in (rec, gan)]
    of_rec, of_gan = made.batch.across(torch.stack(gradients).detach())
    return (of_rec.norm() / (of_gan.norm() + DELTA)).clamp_max(MAX_ADAPTIVE_WEIGHT)


def last_layer(model: Autoencoder) -> nn.Parameter:
    """The weight of the decoder's last layer, which `require_last_layer` has found."""
    return _matrices(model)[-1]


def require_last_layer(model: Autoencoder, frames_BCHW: Tensor) -> None:
    """Raise ConfigError unless the reconstructions depend on what `last_layer` finds."""
    matrices = _matrices(model)
    found = torch.autograd.grad(frames_BCHW.sum(), matrices[-1:], allow_unused=True) if matrices else [None]
    if found[0] is None:
        raise ConfigError(
            "its decoder's last layer is not found",
            field="autoencoder",
            got=model.kind,
            expected="a module `decoder`, whose last weight is that of the last layer",
        )


def _matrices(model: Autoencoder) -> list[nn.Parameter]:
    """The matrices and kernels of `model.decoder`, or of the whole model if it has none of that name."""
    decoder = getattr(model, "decoder", model)
    return [each for each in decoder.parameters() if each.ndim >= 2] if isinstance(decoder, nn.Module) else []
