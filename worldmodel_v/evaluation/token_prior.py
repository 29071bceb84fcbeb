"""An autoregressive prior of tokens, fitted after training: p(t) = Π_p p(t_p | t_1, …, t_p-1), row by row.

PixelCNN's factorisation (van den Oord et al. 2016, arXiv:1601.06759), which VQ-VAE's authors fit to tokens, here by a small
transformer. It begins as the distribution that says nothing of the tokens before, and learns what they add:

    log p(t_p | t_<p) = log softmax(log f_p + g_θ(t_<p))

f_p are the frequencies at place p, and g is 0 at the start. It is fitted to half of the held-out episodes and scored on the
others, both ways.

Legend: N frames, n samples, P tokens of a frame, V values of a token, D width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from worldmodel_v.device import torch_threads
from worldmodel_v.evaluation.prior import across_halves

WIDTH, LAYERS, HEADS = 64, 2, 4
STEPS, EPOCHS, BATCH_SIZE, LEARNING_RATE = 400, 8, 32, 2e-3
TOKENS_AT_ONCE, LOGITS_AT_ONCE = 2048, 1 << 22
MOST_TOKENS = 1024
"""Of a frame. Attention over more takes too long beside an evaluation."""


@dataclass(frozen=True, kw_only=True)
class TokenPriorFit:
    """How well the prior forecasts the tokens of other episodes, in bits a frame; None where there is a single episode."""

    bits: float | None
    independent_bits: float | None
    """The same if the tokens of a frame are independent, by the frequencies of each place alone."""


@dataclass(frozen=True)
class TokenPrior:
    """A distribution of tokens, fitted to all frames."""

    fit: TokenPriorFit
    network: "Autoregressive"
    token_shape: tuple[int, ...]
    surprise: np.ndarray | None
    """(N,), in bits: -log2 p(t) under the fit to the other half of the episodes; None if there is a single episode."""

    def sample(self, count: int) -> np.ndarray:
        """int64 (n, …), the same at every call."""
        nothing = torch.zeros(count, math.prod(self.token_shape), dtype=torch.int64)
        everywhere = torch.ones_like(nothing[0], dtype=torch.bool)
        drawn = self.network.continued(nothing, everywhere, torch.Generator().manual_seed(0))
        return drawn.reshape(count, *self.token_shape).numpy()

    def filled(self, tokens_n: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Tokens (n, …); those at the `hidden` places, bool (…), become the most probable ones, one after the other."""
        tokens = torch.from_numpy(tokens_n.astype(np.int64)).flatten(start_dim=1)
        filled = self.network.continued(tokens, torch.from_numpy(hidden).flatten())
        return filled.reshape(tokens_n.shape).numpy()


def fit_token_prior(tokens_N: torch.Tensor, num_values: int, episode_N: np.ndarray, seed: int) -> TokenPrior:
    """Fit it to the tokens of frames, (N, …), of any dtype of whole numbers; `episode_N` says which episode a frame is of."""
    tokens_NP = tokens_N.flatten(start_dim=1).long()
    bits_N = across_halves(episode_N, partial(_bits, tokens_NP, num_values, seed))
    network = _fitted(tokens_NP, num_values, seed)
    independent_N = across_halves(episode_N, partial(_independent_bits, tokens_NP, num_values))
    found = {"bits": bits_N, "independent_bits": independent_N}
    fit = TokenPriorFit(**{name: None if each is None else float(each.mean()) for name, each in found.items()})
    return TokenPrior(fit, network, tuple(tokens_N.shape[1:]), bits_N)


class Autoregressive(nn.Module):
    """log p(t_p | t_<p) of all places at once."""

    log_shares: torch.Tensor

    def __init__(self, log_shares_PV: torch.Tensor) -> None:
        super().__init__()
        places, values = log_shares_PV.shape
        self.register_buffer("log_shares", log_shares_PV)
        self.values = nn.Embedding(values + 1, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(places, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.to_logits = nn.Linear(WIDTH, values)
        nn.init.zeros_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)

    def forward(self, tokens_NP: torch.Tensor) -> torch.Tensor:
        """Logits (N, P, V), each from the tokens before its place; what stands at the last place is not looked at."""
        places, values = self.log_shares.shape
        before = functional.pad(tokens_NP[:, :-1], (1, 0), value=values)
        mask = nn.Transformer.generate_square_subsequent_mask(places)
        seen = self.layers(self.values(before) + self.places, mask, is_causal=True)
        return self.log_shares + self.to_logits(seen)

    def nll(self, tokens_NP: torch.Tensor) -> torch.Tensor:
        """In nats: (N, P)."""
        return functional.cross_entropy(self(tokens_NP).transpose(1, 2), tokens_NP, reduction="none")

    @torch.no_grad()
    def continued(self, tokens_nP: torch.Tensor, at: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """The tokens with those `at` some places, bool (P,), drawn anew; without a generator, the most probable ones."""
        tokens = tokens_nP.clone()
        for place in at.nonzero()[:, 0].tolist():
            for rows in _batches(tokens, self.log_shares):
                logits = self(tokens[rows])[:, place]
                drawn = (
                    logits.argmax(dim=1) if generator is None else torch.multinomial(logits.softmax(1), 1, generator=generator)
                )
                tokens[rows, place] = drawn.flatten()
        return tokens


def _bits(tokens_NP: torch.Tensor, num_values: int, seed: int, fitted_N: np.ndarray, scored_N: np.ndarray) -> np.ndarray:
    network, scored = _fitted(tokens_NP[fitted_N], num_values, seed), tokens_NP[scored_N]
    with torch.no_grad(), torch_threads(1):
        nll = torch.cat([network.nll(scored[rows]).double().sum(dim=1) for rows in _batches(scored, network.log_shares)])
    return nll.numpy() / math.log(2)


def _independent_bits(tokens_NP: torch.Tensor, num_values: int, fitted_N: np.ndarray, scored_N: np.ndarray) -> np.ndarray:
    log_shares_PV = _log_shares(tokens_NP[fitted_N], num_values)
    nll = -log_shares_PV[torch.arange(tokens_NP.shape[1]), tokens_NP[scored_N]].double().sum(dim=1)
    return nll.numpy() / math.log(2)


def _fitted(tokens_NP: torch.Tensor, num_values: int, seed: int) -> Autoregressive:
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch_threads(1):  # small networks gain nothing by more
        torch.manual_seed(seed)
        network = Autoregressive(_log_shares(tokens_NP, num_values))
        at_once = min(BATCH_SIZE, _at_once(network.log_shares))
        steps = max(1, min(STEPS, EPOCHS * len(tokens_NP) // at_once))
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(2, steps))
        for _ in range(steps):
            loss = network.nll(tokens_NP[torch.randint(len(tokens_NP), (at_once,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _log_shares(tokens_NP: torch.Tensor, num_values: int) -> torch.Tensor:
    """The logarithm of each value's share at each place, as if it had been seen 1 / V times more: float32 (P, V)."""
    counts = torch.full((tokens_NP.shape[1], num_values), 1 / num_values, dtype=torch.float64)
    counts.scatter_add_(1, tokens_NP.T, torch.ones(tokens_NP.T.shape, dtype=torch.float64))
    return (counts / (len(tokens_NP) + 1)).log().float()


def _at_once(log_shares_PV: torch.Tensor) -> int:
    """Frames in a batch, by the memory that they take."""
    places = log_shares_PV.shape[0]
    return max(1, min(TOKENS_AT_ONCE // places, LOGITS_AT_ONCE // log_shares_PV.numel()))


def _batches(tokens_NP: torch.Tensor, log_shares_PV: torch.Tensor) -> Iterator[slice]:
    at_once = _at_once(log_shares_PV)
    return (slice(start, start + at_once) for start in range(0, len(tokens_NP), at_once))
