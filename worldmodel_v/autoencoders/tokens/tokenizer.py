"""What all autoencoders with tokens share: the column, the loss's frame, the figures and what they warn of.

Legend: B batch, N frames, C channels, H, W frame, K values of the condition, P tokens of a frame, V values of a token.

The quantisation has no gradient. The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432) passes the decoder's
gradient on to the encoder as if nothing had been quantised: q(z) = z + sg(q(z) - z), where sg stops the gradient.

Reconstructions are judged by a likelihood without a learned σ: where it is the only term of the loss, σ would only scale the
gradients.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel_v.autoencoders.base import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderSettings,
    Batch,
    Compile,
    Figures,
    Finding,
    Latents,
    Loss,
    Scores,
)
from worldmodel_v.autoencoders.reconstruction import reconstructed
from worldmodel_v.autoencoders.tokens.use import CodeUse, code_use, entropy
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import MAX_SIDE, SIDE_STEP
from worldmodel_v.schema import Column, Draw

TOKENS = "tokens"
"""The column."""

MAX_CODES = 1 << 16
"""Values of a token: the largest codebook of the FSQ paper. They fit into uint16."""

COLLAPSED_BITS = 1.0
"""With less entropy, all frames have nearly the same tokens."""

FEW_CODES = 0.05
"""The codebook counts as unused if its perplexity is below this share of what it could be."""


@dataclass(frozen=True, kw_only=True)
class TokenSettings(AutoencoderSettings):
    """What all autoencoders with tokens are told."""

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """gaussian: the sum of squared errors; bernoulli: binary cross-entropy."""


class Terms(NamedTuple):
    """The terms of a batch, one for each frame."""

    minimised: Tensor
    """(B,)"""

    figures: Mapping[str, Tensor]
    """What is recorded: (B,) each."""

    tokens: Tensor
    """int64 (B, …)"""

    logits: Tensor
    """(B, C, H, W): the reconstructions before the sigmoid."""

    features: Tensor | None = None
    """What was quantised, if a codebook follows it."""


class Tokenizer(Autoencoder):
    """An autoencoder whose only column is `tokens`. Subclasses have `encode`, `codes_of`, `decode_logits` and `terms`."""

    config: Any
    """That of a subclass, which has `TokenSettings`."""

    shares_codes: ClassVar[bool] = True
    """Whether all tokens of a frame use one codebook."""

    shown: ClassVar[tuple[str, ...]] = ("perplexity",)

    def __init__(self, config: AutoencoderConfig, token_shape: tuple[int, ...], num_values: int) -> None:
        super().__init__(config)
        self.token_shape, self.num_values = token_shape, num_values
        self.in_parts = True

    @abstractmethod
    def codes_of(self, tokens_B: Tensor) -> Tensor:
        """What the decoder gets for tokens, int64 (B, …): float32 (B, …, D), D numbers for each."""

    @abstractmethod
    def decode_logits(self, codes_B: Tensor, condition_BK: Tensor | None = None) -> Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""

    @abstractmethod
    def terms(self, x_BCHW: Tensor, condition_BK: Tensor | None, noise: Tensor | None) -> Terms:
        """The loss of each frame, and its tokens."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do if codes are not used."""

    @property
    @abstractmethod
    def smaller(self) -> str:
        """How to ask for fewer codes."""

    def learn(self, terms: Terms, batch: Batch) -> None:
        """Called at each training step, for what gradients do not change. Means are to be over all of the batch: `across`."""

    # As an autoencoder

    def decode(self, latents: Latents, condition_BK: Tensor | None = None) -> Tensor:
        """The frames of tokens of any dtype of whole numbers."""
        return torch.sigmoid(self.decode_logits(self.codes_of(latents[TOKENS].long()), condition_BK))

    def latents(self, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
        """tokens, in the smallest unsigned dtype that holds them."""
        smallest = str(np.min_scalar_type(self.num_values - 1))
        column = Column(name=TOKENS, dtype=smallest, row_shape=self.token_shape, role="latent", num_values=self.num_values)
        return (column,), ()

    def loss(self, batch: Batch) -> Loss:
        """The mean of `terms`, with the perplexity of the batch's codes."""
        return self.objective()(batch)

    def objective(self, *, compile: Compile | None = None, recompute: bool = False) -> Callable[[Batch], Loss]:
        """`loss`; only `terms` is compiled."""
        if recompute:
            return super().objective(recompute=True)
        terms_of = compile(self.terms) if compile else self.terms

        def loss(batch: Batch) -> Loss:
            terms = terms_of(batch.x, batch.condition, batch.noise)
            if self.training:
                self.learn(terms, batch)
            figures = {name: values.mean() for name, values in terms.figures.items()}
            figures["perplexity"] = self._perplexity(terms.tokens, batch.across)
            made = functools.partial(reconstructed, self.config.likelihood, terms.logits, batch.x)
            return Loss(terms.minimised.mean(), figures, made)

        return loss

    def _perplexity(self, tokens_B: Tensor, across: Callable[[Tensor], Tensor]) -> Tensor:
        """That of the whole batch, 0-dim; with a codebook for each token the geometric mean."""
        shares = across(self.shares_of(tokens_B))
        return torch.stack([entropy(each) for each in shares]).mean().exp().float()

    def shares_of(self, tokens_B: Tensor) -> Tensor:
        """The share of each code in each codebook: float32 (1, V), or (P, V) with a codebook for each token."""
        tokens = tokens_B.reshape(1, -1) if self.shares_codes else tokens_B.flatten(start_dim=1).T
        counts = torch.zeros(len(tokens), self.num_values, device=tokens.device)
        return counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=torch.float32)) / tokens.shape[1]

    # Figures

    def code_use(self, scores: Scores) -> CodeUse:
        """How the frames' tokens use the codes."""
        return code_use(scores.latents[TOKENS], self.num_values, is_shared=self.shares_codes)

    def figures(self, scores: Scores) -> Figures:
        """Perplexity, dead codes, and the bits of a frame: see `use`."""
        found = self.code_use(scores)
        return {
            "perplexity": found.perplexity,
            "dead_codes": found.dead_codes,
            "num_codes": found.num_codes,
            "entropy_bits": found.entropy_bits,
            "capacity_bits": found.capacity_bits,
        }

    def health(self, scores: Scores) -> dict[str, float | list[float]]:
        """The entropy at each place."""
        return {"entropy_bits_per_token": self.code_use(scores).entropy_bits_per_token}

    def findings(self, step: int, figures: Figures, health: Mapping[str, float | list[float]]) -> list[Finding]:
        """A codebook of which little is used, and tokens that are the same for all frames."""
        bits, capacity = figures["entropy_bits"], figures["capacity_bits"]
        if bits < COLLAPSED_BITS:
            text = (
                f"step {step}: all frames have nearly the same tokens ({bits:.2f} bits a frame of {capacity:.0f}): the "
                f"codebook has collapsed; {self.remedy}"
            )
            return [Finding("collapse", text, is_collapse=True)]
        most = min(self.num_values, figures["num_frames"] * (math.prod(self.token_shape) if self.shares_codes else 1))
        if figures["perplexity"] >= FEW_CODES * most:
            return []
        text = (
            f"step {step}: few codes are used, as many as {figures['perplexity']:.1f} of {self.num_values} would be if they "
            f"were equally frequent, and {figures['dead_codes']} of {figures['num_codes']} are dead; {self.smaller} may do as "
            f"well, otherwise {self.remedy}"
        )
        return [Finding("codes", text)]


def require_frame_shape(config: AutoencoderConfig) -> None:
    """Raise ConfigError unless height and width are multiples of 8, up to 1024."""
    if any(side % SIDE_STEP or not SIDE_STEP <= side <= MAX_SIDE for side in config.frame_shape):
        sides = f"{config.frame_height}x{config.frame_width}"
        raise ConfigError(
            f"tokens need frames whose height and width are multiples of {SIDE_STEP}, up to {MAX_SIDE}; these are {sides}"
        )
