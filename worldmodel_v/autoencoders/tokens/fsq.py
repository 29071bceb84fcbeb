"""Finite scalar quantisation: each of the few values of a code is rounded to one of its levels, and all combinations are codes.

Legend: B batch, h, w tokens, D values of a code, L levels of a value.

    bound(z) = tanh(z + tan(o / l)) l - o,  l = (L - 1)(1 - ε) / 2,  o = 1/2 for an even L and 0 for an odd one
    code = round(bound(z)) / floor(L / 2),  with straight-through gradients
    token = Σ_d (round(bound(z_d)) + floor(L_d / 2)) Π_{e<d} L_e

There is no codebook to learn, so no further loss and no codes to revive. Source: Mentzer et al. 2023 (arXiv:2309.15505),
section 3 and appendix A.1. The paper advises five levels or more for each value; for about 2^8, 2^10, 2^12, 2^14 or 2^16
codes it uses (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5) and (8, 8, 8, 5, 5, 5).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel_v.autoencoders.reconstruction import plain_nll
from worldmodel_v.autoencoders.tokens.grid import GridConfig, GridSettings, GridTokenizer
from worldmodel_v.autoencoders.tokens.tokenizer import MAX_CODES, Terms
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option

EPS = 1e-3


@dataclass(frozen=True, kw_only=True)
class FSQSettings(GridSettings):
    """The levels, and what all with a map of tokens are told."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Levels of each value of a code, at least 2; their product, at most 65536, is the number of codes."""

    def require_combination(self, steps: int) -> None:
        """Raise ConfigError if there are no levels, one of them is below 2, or they make too many codes."""
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(field="levels", expected="whole numbers of at least 2", got=self.levels)
        if math.prod(self.levels) > MAX_CODES:
            what = f"are {math.prod(self.levels)} codes together"
            raise ConfigError(what, field="levels", expected=f"at most {MAX_CODES}", got=self.levels)


@dataclass(frozen=True, kw_only=True)
class FSQConfig(FSQSettings, GridConfig):
    """What determines the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_combination(steps=0)


class FSQ(GridTokenizer):
    """Encoder, rounding, decoder."""

    settings_class = FSQSettings
    config_class = FSQConfig
    config: FSQConfig
    kind = "fsq"
    levels: Tensor
    basis: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__(config, len(config.levels), math.prod(config.levels))
        self.levels = nn.Buffer(torch.tensor(config.levels), persistent=False)
        self.basis = nn.Buffer(basis_of(self.levels), persistent=False)

    @property
    def remedy(self) -> str:
        """What to do if codes are not used."""
        return f"lower {option('learning_rate')}, or train longer"

    @property
    def smaller(self) -> str:
        """How to ask for fewer codes."""
        return f"fewer or smaller {option('levels')}"

    def tokens_of(self, features_BhwD: Tensor) -> Tensor:
        """int64 (B, h, w)"""
        return to_tokens(quantised(features_BhwD, self.levels), self.levels, self.basis)

    def codes_of(self, tokens_Bhw: Tensor) -> Tensor:
        """float32 (B, h, w, D) in [-1, 1]"""
        return to_codes(tokens_Bhw, self.levels, self.basis)

    def terms(self, x_BCHW: Tensor, condition_BK: Tensor | None, noise: Tensor | None) -> Terms:
        """-log p(x|z) is all that is minimised."""
        codes = quantised(self.features(x_BCHW, condition_BK), self.levels)
        logits = self.decode_logits(codes, condition_BK)
        error_B = plain_nll(self.config.likelihood, logits, x_BCHW)
        return Terms(error_B, {}, to_tokens(codes.detach(), self.levels, self.basis), logits)


def basis_of(levels_D: Tensor) -> Tensor:
    """What a step of each value adds to the token, the product of the levels before it: int64 (D,)."""
    return torch.cat([torch.ones_like(levels_D[:1]), levels_D[:-1]]).cumprod(dim=0)


def bounded(z: Tensor, levels_D: Tensor) -> Tensor:
    """z, (…, D), in a range that is rounded to exactly L whole numbers."""
    half = (levels_D - 1).to(z.dtype) * (1 - EPS) / 2
    offset = (levels_D % 2 == 0).to(z.dtype) / 2
    return torch.tanh(z + torch.tan(offset / half)) * half - offset


def quantised(z: Tensor, levels_D: Tensor) -> Tensor:
    """The codes of z, (…, D) in [-1, 1], with the gradient of `bounded`."""
    within = bounded(z, levels_D)
    whole = within + (within.round() - within).detach()
    return whole / (levels_D // 2)


def to_tokens(codes: Tensor, levels_D: Tensor, basis_D: Tensor) -> Tensor:
    """The tokens of codes (…, D): int64 (…)."""
    half_width = levels_D // 2
    return (((codes * half_width).round().long() + half_width) * basis_D).sum(dim=-1)


def to_codes(tokens: Tensor, levels_D: Tensor, basis_D: Tensor) -> Tensor:
    """The codes of tokens (…): float32 (…, D); the inverse of `to_tokens`."""
    half_width = levels_D // 2
    return (tokens[..., None] // basis_D % levels_D - half_width).float() / half_width
