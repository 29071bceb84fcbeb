"""A row of categorical variables: each of K tokens is one of C classes of its own, as the latents of DreamerV2 and V3.

Legend: B batch, K tokens, C classes, N features.

    p_k = (1 - u) softmax(logits_k) + u / C,   s_k ~ p_k,   z_k = onehot(s_k) + p_k - sg(p_k)
    loss = -log p(x|z) + β Σ_k KL(p_k || uniform),   KL(p || uniform) = log C - H(p)

sg stops the gradient; z goes to the decoder. Mixing in u = 1% of the uniform distribution ("unimix") keeps every class
possible, so the KL and the gradients stay bounded. Source: Hafner et al. 2020 (arXiv:2010.02193) and 2023 (arXiv:2301.04104).

Dreamer trains its dynamics model together with the autoencoder, and the KL is to what that model forecasts. Here the
autoencoder is alone, so the prior is the uniform distribution: the loss is the -ELBO of a discrete VAE (Ramesh et al. 2021,
arXiv:2102.12092) with weight β. It rewards entropy, so classes that do not matter for the frame stay undecided and in use. The
default β is small, because the sum of squared errors of a good reconstruction is only a few tens. Training draws classes;
encoding stores the most probable ones.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval, Lt
from torch import Tensor, nn
from torch.nn import functional

from worldmodel_v.autoencoders.base import AutoencoderConfig, Latents
from worldmodel_v.autoencoders.blocks import beside, halvings, residual_network
from worldmodel_v.autoencoders.reconstruction import plain_nll
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS, Terms, Tokenizer, TokenSettings, require_frame_shape
from worldmodel_v.surface import option


@dataclass(frozen=True, kw_only=True)
class CategoricalSettings(TokenSettings):
    """The variables and their loss."""

    num_categoricals: Annotated[int, Interval(ge=1, le=1024)] = 32
    """Tokens of a frame."""

    num_classes: Annotated[int, Interval(ge=2, le=1024)] = 32
    """Values of a token."""

    unimix: Annotated[float, Ge(0), Lt(1)] = 0.01
    """Share of the uniform distribution that is mixed into each token's probabilities."""

    beta: Annotated[float, Ge(0)] = 0.01
    """Weight of the KL to the uniform distribution; errors are sums over pixels. More keeps more classes in use."""


@dataclass(frozen=True, kw_only=True)
class CategoricalConfig(CategoricalSettings, AutoencoderConfig):
    """What determines the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_frame_shape(self)


class Categorical(Tokenizer):
    """The VAE's residual network around a row of categorical variables."""

    settings_class = CategoricalSettings
    config_class = CategoricalConfig
    config: CategoricalConfig
    kind = "categorical"
    shares_codes = False
    shown = ("kl", "perplexity")

    def __init__(self, config: CategoricalConfig) -> None:
        super().__init__(config, (config.num_categoricals,), config.num_classes)
        network = residual_network(halvings(config.frame_shape), config.channels)
        self._bottom, size = network.bottom, config.num_categoricals * config.num_classes
        self.encoder, self.decoder = network.encoder, network.decoder
        self.to_logits = nn.Linear(network.features + config.condition_dim, size)
        self.from_classes = nn.Linear(size + config.condition_dim, math.prod(network.bottom))
        self.noise_shape = (config.num_categoricals,)

    @property
    def remedy(self) -> str:
        """What to do if codes are not used."""
        return f"raise {option('beta')}, or lower {option('learning_rate')}"

    @property
    def smaller(self) -> str:
        """How to ask for fewer codes."""
        return f"fewer {option('num_classes')}"

    def logits(self, x_BCHW: Tensor, condition_BK: Tensor | None = None) -> Tensor:
        """float32 (B, K, C), for any autocast."""
        features_BN = self.encoder(x_BCHW).flatten(start_dim=1).float()
        logits = self.to_logits(beside(features_BN, self.standardised(condition_BK)))
        return logits.float().unflatten(1, (*self.token_shape, -1))

    def decode_logits(self, classes_BKC: Tensor, condition_BK: Tensor | None = None) -> Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""
        values_BN = beside(classes_BKC.flatten(start_dim=1), self.standardised(condition_BK))
        bottom = self.from_classes(values_BN).unflatten(1, self._bottom)
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()

    def encode(self, x_BCHW: Tensor, condition_BK: Tensor | None = None) -> Latents:
        """tokens: int64 (B, K), the most probable classes."""
        return {TOKENS: self.logits(x_BCHW, condition_BK).argmax(dim=-1)}

    def codes_of(self, tokens_BK: Tensor) -> Tensor:
        """One-hot: float32 (B, K, C)"""
        return functional.one_hot(tokens_BK, self.num_values).float()

    def terms(self, x_BCHW: Tensor, condition_BK: Tensor | None, noise: Tensor | None) -> Terms:
        """-log p(x|z) for drawn classes (without noise the most probable ones), and the weighted KL."""
        probs = mixed(self.logits(x_BCHW, condition_BK), self.config.unimix)
        tokens = probs.argmax(dim=-1) if noise is None else drawn(probs.detach(), noise)
        logits = self.decode_logits(straight_through(tokens, probs), condition_BK)
        error_B = plain_nll(self.config.likelihood, logits, x_BCHW)
        kl_B = kl_to_uniform(probs).sum(dim=1)
        return Terms(error_B + self.config.beta * kl_B, {"reconstruction": error_B, "kl": kl_B}, tokens, logits)


def mixed(logits: Tensor, unimix: float) -> Tensor:
    """The probabilities of classes (…, C), with a share of the uniform distribution."""
    return (1 - unimix) * logits.softmax(dim=-1) + unimix / logits.shape[-1]


def drawn(probs: Tensor, noise: Tensor) -> Tensor:
    """Classes drawn with these probabilities (…, C): int64 (…). `noise` (…) from N(0, 1) is turned into uniform numbers u; the
    class is the first one whose cumulative probability exceeds u."""
    uniform = torch.special.ndtr(noise.double())
    cumulative = probs.double().cumsum(dim=-1)[..., :-1]
    return (cumulative <= uniform[..., None]).sum(dim=-1)


def straight_through(tokens: Tensor, probs: Tensor) -> Tensor:
    """One-hot float (…, C), with the gradient of the probabilities."""
    chosen = functional.one_hot(tokens, probs.shape[-1]).to(probs.dtype)
    return chosen + (probs - probs.detach())


def kl_to_uniform(probs: Tensor) -> Tensor:
    """KL(p || uniform) = log C - H(p) in nats, (…), from (…, C)."""
    return math.log(probs.shape[-1]) - torch.special.entr(probs).sum(dim=-1)
