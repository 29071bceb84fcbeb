"""A codebook that follows what is quantised by moving averages, without gradients; and codes that nothing uses are revived.

Legend: M vectors of a batch, K codes, D values of a code.

The update is that of van den Oord et al. 2017 (arXiv:1711.00937), appendix A.1, with decay γ. Of the vectors z of a step, let
n_i be the share that is nearest to code i, and s_i their sum over M:

    N_i <- γ N_i + (1 - γ) n_i,   m_i <- γ m_i + (1 - γ) s_i,   e_i = m_i / Ñ_i,   Ñ_i = N (N_i + ε) / (N + K ε),   N = Σ N_i

Ñ_i is Laplace's smoothing of N_i, as in Sonnet's implementation. In the paper n_i and s_i are counts and sums; here both are
divided by M, which changes no code, so that they are means: several processes and threads, each with its part of a batch,
agree on them (`Batch.across`), and all take the same step.

Codes that are far from every vector never win one, and so never move. Every `REVIVAL_STEPS` steps, the first included, a code
with an N_i below 1% of an equal share, 1 / K, is dead. It is moved to a draw from the batch: a code is drawn with probability
n_i, then a vector from the normal distribution with the mean and the variance of that code's vectors. It gets twice the N_i of
a dead code, so it is moved again if it wins nothing until the next time. The draws are a function of the step, so a training
that is continued makes the same. In step 0 all codes are dead but those that win: so the codebook starts from the data.

Rejected: vectors of the batch themselves (Dhariwal et al. 2020, arXiv:2005.00341). One of the parts of a batch would have to
choose them and send them to the others.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

REVIVAL_STEPS = 100
DEAD_SHARE = 0.01
EPS = 1e-9


class Codebook(nn.Module):
    """K codes; `update` is called in every training step."""

    codes: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, code_dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.codes = nn.Buffer(torch.randn(num_codes, code_dim))
        """e: (K, D)"""
        self.usage = nn.Buffer(torch.zeros(num_codes))
        """N: (K,)"""
        self.sums = nn.Buffer(torch.zeros(num_codes, code_dim))
        """m: (K, D)"""

    def nearest(self, z: Tensor) -> Tensor:
        """The code with the smallest distance to each vector (…, D), computed in float32: int64 (…)."""
        with torch.autocast(z.device.type, enabled=False):
            z_MD = z.float().flatten(end_dim=-2)
            distances = self.codes.square().sum(dim=1) - 2 * z_MD @ self.codes.T  # plus |z|², which is the same for all
            return distances.argmin(dim=1).view(z.shape[:-1])

    @torch.no_grad()
    def update(self, z: Tensor, tokens: Tensor, across: Callable[[Tensor], Tensor], step: int) -> None:
        """Move the codes towards the vectors (…, D) of a step that are nearest to them; at some steps, revive dead ones."""
        with torch.autocast(z.device.type, enabled=False):
            z_MD, revives = z.float().flatten(end_dim=-2), step % REVIVAL_STEPS == 0
            values = torch.cat([torch.ones_like(z_MD[:, :1]), z_MD, *([z_MD.square()] if revives else [])], dim=1)
            means = across(self._sum_by_code(values, tokens.flatten()) / len(z_MD))
            shares, sums = means[:, 0], means[:, 1 : 1 + z_MD.shape[1]]
            self.usage.lerp_(shares, 1 - self.decay)
            self.sums.lerp_(sums, 1 - self.decay)
            self.codes.copy_(self.sums / self._smoothed_usage()[:, None])
            if revives:
                squares = means[:, 1 + z_MD.shape[1] :]
                self._revive(shares, sums, squares, torch.Generator("cpu").manual_seed(step))

    def _sum_by_code(self, values_MV: Tensor, tokens_M: Tensor) -> Tensor:
        """The sum of the rows of each code: float32 (K, V)."""
        sums = values_MV.new_zeros(len(self.codes), values_MV.shape[1])
        return sums.index_add_(0, tokens_M, values_MV)

    def _smoothed_usage(self) -> Tensor:
        total = self.usage.sum()
        return total * (self.usage + EPS) / (total + len(self.usage) * EPS)

    def _revive(self, shares_K: Tensor, sums_KD: Tensor, squares_KD: Tensor, generator: torch.Generator) -> None:
        """Move dead codes to draws from the batch, of which these are the shares, sums and sums of squares of each code."""
        device, threshold = shares_K.device, DEAD_SHARE / len(self.usage)
        dead_K1 = (self.usage < threshold)[:, None]
        donors = torch.multinomial(shares_K.double().cpu(), len(self.codes), replacement=True, generator=generator).to(device)
        noise = torch.randn(self.codes.shape, generator=generator, dtype=torch.float32, device="cpu").to(device)
        counts = shares_K[donors, None]
        mean = sums_KD[donors] / counts
        variance = (squares_KD[donors] / counts - mean.square()).clamp_min(0)
        self.codes.copy_(torch.where(dead_K1, mean + variance.sqrt() * noise, self.codes))
        self.usage.copy_(torch.where(dead_K1[:, 0], 2 * threshold, self.usage))
        self.sums.copy_(torch.where(dead_K1, self.codes * self._smoothed_usage()[:, None], self.sums))
