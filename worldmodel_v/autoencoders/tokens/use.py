"""How an autoencoder uses its codes, from the tokens of many frames.

Legend: N frames, P tokens of a frame, V values of a token.

Tokens of a map share one codebook: a code means the same wherever it stands. If every token of a frame has its own classes,
each has its own codebook.

- The perplexity is exp(H), where H is the entropy of the codes' frequencies in nats: the number of codes which, used equally
  often, would have the same entropy (van den Oord et al. 2017, arXiv:1711.00937, use it). It is 1 to V.
- A dead code is one that no token has.
- The capacity of a frame is P log2 V bits. Its entropy, Σ H(token at place p) in bits, is what is used of it: a code that is
  optimal for each place by itself needs so many bits. A dynamics model, which knows the past, needs fewer.

Entropies are those of the frequencies counted: over few frames they are too low, and codes seem dead that only are rare.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """How the tokens of some frames use the codes."""

    perplexity: float
    """Of the codebook; with a codebook for each token, the geometric mean of their perplexities."""

    dead_codes: int
    num_codes: int
    """In all codebooks."""

    num_tokens: int
    """P"""

    num_values: int
    """V"""

    entropy_bits_per_token: list[float]
    """At each place, row by row: (P,)."""

    shares: list[float]
    """The share of each code among all tokens, in descending order, without dead codes. With a codebook for each token, that
    of each class, averaged over the codebooks after sorting."""

    @property
    def capacity_bits(self) -> float:
        """P log2 V, of a frame."""
        return self.num_tokens * math.log2(self.num_values)

    @property
    def entropy_bits(self) -> float:
        """Of a frame: the sum over places."""
        return sum(self.entropy_bits_per_token)


def code_use(tokens_N: Tensor, num_values: int, *, is_shared: bool) -> CodeUse:
    """The use of codes by tokens (N, …), of any dtype of whole numbers; `is_shared` says that they share one codebook."""
    tokens_NP = tokens_N.flatten(start_dim=1).long()
    num_tokens = tokens_NP.shape[1]
    of_places = [torch.unique(place, return_counts=True)[1] for place in tokens_NP.T]
    entropies = torch.stack([entropy(counts) for counts in of_places])
    codebooks = [torch.unique(tokens_NP, return_counts=True)[1]] if is_shared else of_places
    num_codes = num_values * len(codebooks)
    return CodeUse(
        perplexity=float(torch.stack([entropy(counts) for counts in codebooks]).mean().exp()),
        dead_codes=num_codes - sum(len(counts) for counts in codebooks),
        num_codes=num_codes,
        num_tokens=num_tokens,
        num_values=num_values,
        entropy_bits_per_token=(entropies / math.log(2)).tolist(),
        shares=_shares(codebooks),
    )


def entropy(counts_V: Tensor) -> Tensor:
    """0-dim float64: the entropy in nats of the frequencies that counts, or shares of any sum, have."""
    shares = counts_V.double() / counts_V.sum()
    return torch.special.entr(shares).sum()


def _shares(codebooks: list[Tensor]) -> list[float]:
    most = max(len(counts) for counts in codebooks)
    total = torch.zeros(most, dtype=torch.float64)
    for counts in codebooks:
        total[: len(counts)] += counts.sort(descending=True).values / counts.sum()
    return (total / len(codebooks)).tolist()
