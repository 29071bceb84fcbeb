"""Vector quantisation: each vector of features becomes the nearest code of a learned codebook (VQ-VAE).

Legend: B batch, h, w tokens, D values of a code, K codes.

    token = argmin_k |z - e_k|,   q = z + sg(e_token - z),   loss = -log p(x|q) + β Σ |z - sg(e_token)|²

The sum is over the places of a frame, and sg stops the gradient. Source: van den Oord et al. 2017 (arXiv:1711.00937), equations
1 to 3 and appendix A.1: `codebook` follows the features by moving averages, in place of the paper's second term. The last term,
the commitment, keeps features near their codes. The paper found little difference for β from 0.1 to 2.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval, Lt
from torch import Tensor

from worldmodel_v.autoencoders.base import Batch
from worldmodel_v.autoencoders.reconstruction import plain_nll
from worldmodel_v.autoencoders.tokens.codebook import Codebook
from worldmodel_v.autoencoders.tokens.grid import GridConfig, GridSettings, GridTokenizer
from worldmodel_v.autoencoders.tokens.tokenizer import MAX_CODES, Terms
from worldmodel_v.surface import option


@dataclass(frozen=True, kw_only=True)
class VQSettings(GridSettings):
    """The codebook, and what all with a map of tokens are told."""

    codebook_size: Annotated[int, Interval(ge=2, le=MAX_CODES)] = 512
    """Number of codes."""

    code_dim: Annotated[int, Interval(ge=1, le=1024)] = 32
    """Size of a code's vector."""

    commitment: Annotated[float, Ge(0)] = 0.25
    """Weight of the term that keeps features near their codes (the paper's beta)."""

    codebook_decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    """How much of the codebook's moving averages stays at each step."""


@dataclass(frozen=True, kw_only=True)
class VQConfig(VQSettings, GridConfig):
    """What determines the network."""


class VQ(GridTokenizer):
    """Encoder, codebook, decoder."""

    settings_class = VQSettings
    config_class = VQConfig
    config: VQConfig
    kind = "vq"

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config, config.code_dim, config.codebook_size)
        self.codebook = Codebook(config.codebook_size, config.code_dim, config.codebook_decay)

    @property
    def remedy(self) -> str:
        """What to do if codes are not used."""
        return f"lower {option('learning_rate')} or {option('commitment')}, or raise {option('batch_size')}"

    @property
    def smaller(self) -> str:
        """How to ask for fewer codes."""
        return f"a smaller {option('codebook_size')}"

    def tokens_of(self, features_BhwD: Tensor) -> Tensor:
        """int64 (B, h, w)"""
        return self.codebook.nearest(features_BhwD)

    def codes_of(self, tokens_Bhw: Tensor) -> Tensor:
        """float32 (B, h, w, D)"""
        return self.codebook.codes[tokens_Bhw]

    def terms(self, x_BCHW: Tensor, condition_BK: Tensor | None, noise: Tensor | None) -> Terms:
        """-log p(x|z) and the weighted commitment."""
        z = self.features(x_BCHW, condition_BK)
        tokens = self.tokens_of(z.detach())
        codes = self.codes_of(tokens)
        logits = self.decode_logits(z + (codes - z).detach(), condition_BK)
        error_B = plain_nll(self.config.likelihood, logits, x_BCHW)
        commitment_B = (z - codes).square().flatten(start_dim=1).sum(dim=1)
        figures = {"reconstruction": error_B, "commitment": commitment_B}
        return Terms(error_B + self.config.commitment * commitment_B, figures, tokens, logits, z.detach())

    def learn(self, terms: Terms, batch: Batch) -> None:
        """Let the codebook follow."""
        assert terms.features is not None
        self.codebook.update(terms.features, terms.tokens, batch.across, batch.step)
