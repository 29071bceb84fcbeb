"""One small dynamics model for all recipes, and how far its open-loop dreams can be followed.

For vectors it is the example's MDN-RNN, which forecasts all numbers of the next latent independently given the past. For tokens
it is the same LSTM over frames, and a small GRU over the places of the next frame: each token is forecast given those before
it, as IRIS does (Micheli et al. 2023, arXiv:2209.00588). Without the GRU, drawn independently, they mix two futures in one
frame: dreams of `vq` followed for 10 steps then, and 13 with it, at the quickstart's budget. Both take the same number of
windows and steps, and both are dreamed with in the same way: after a warm-up on real latents, each forecast is drawn from
(temperature 1) and the draw is the next input, beside the recorded actions. What is read off a forecast is its expected latent,
as mu is read off a frame, averaged over four dreams: a single one that knows nothing any more is further from the truth than
the mean is. A token is expected given the draws before it.

Legend: B batch, L transitions of a window, Z numbers of a latent, P tokens of a frame, V values of a token, D numbers that the
decoder gets for a token, F = P·D or Z features of a latent, S dreams, H their steps, K variables of the state.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.tokens.grid import GridTokenizer
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS, Tokenizer
from worldmodel_v.data import LatentSequences
from worldmodel_v.progress import Silent
from worldmodel_v.schema import ActionSpace

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from train_mdn_rnn import HIDDEN, MdnRnn, State, Window, as_vectors, disjoint, minimise
from train_mdn_rnn import baselines as vector_baselines
from train_token_transformer import baselines as token_baselines

LENGTH, BATCH = 24, 16
FIT_WINDOWS = 256
EMBEDDING, PLACES_HIDDEN = 16, 128
LEARNING_RATES = {"vectors": 6e-3, "tokens": 3e-3}
WARM_UP, DREAMS = 16, 4
"""Real latents that a dream begins with, and dreams from each start."""


class Vectors(MdnRnn):
    """The example's MDN-RNN."""

    kind = "vectors"

    def nll(self, window: Window) -> torch.Tensor:
        """Of the next latents, in nats: (B, L)."""
        return self.forecast(window).losses(window)[0].sum(dim=-1)

    def imagine(self, z_B1Z: torch.Tensor, action: torch.Tensor, state: State) -> tuple[torch.Tensor, torch.Tensor, State]:
        """A draw of the next latents, their expected features (B, 1, F), and the memory."""
        forecast, state = self(z_B1Z, action, state)
        return forecast.next_z.sample(), forecast.next_z.mean, state

    def unlearned(self, sample: Window) -> dict[str, Any]:
        """Forecasts that know nothing of the past, and that nothing changes: functions of a window that give (B, L) nats."""
        found = vector_baselines(sample, self.actions)
        return {
            "constant": lambda window: found["constant Gaussian"](window).losses(window)[0].sum(dim=-1),
            "staying": lambda window: found["last latent + noise"](window).losses(window)[0].sum(dim=-1),
        }


class TokenRnn(nn.Module):
    """An LSTM that reads the tokens of a frame and the action, and a GRU that reads what the LSTM says of a place of the next
    frame, and the next frame's token before that place."""

    kind = "tokens"

    def __init__(self, sample: Window, table_VD: torch.Tensor, actions: ActionSpace) -> None:
        """`sample` holds windows of the training data, from whose frequencies the forecasts begin."""
        super().__init__()
        coming_NP = sample["next_tokens"].flatten(end_dim=1)
        num_tokens, self.num_values, self.actions = coming_NP.shape[1], len(table_VD), actions
        self.table = nn.Buffer(table_VD)
        self.token = nn.Embedding(self.num_values, EMBEDDING)
        self.lstm = nn.LSTM(num_tokens * EMBEDDING + actions.vector_size, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, num_tokens * EMBEDDING)
        self.stays = nn.Parameter(torch.zeros(num_tokens, 1))
        self.places = nn.GRU(2 * EMBEDDING, PLACES_HIDDEN, batch_first=True)
        self.given = nn.Linear(PLACES_HIDDEN, EMBEDDING)
        counts_PV = torch.full((num_tokens, self.num_values), 1 / self.num_values)
        counts_PV.scatter_add_(1, coming_NP.T, torch.ones_like(coming_NP.T, dtype=torch.float32))
        self.usual = nn.Parameter((counts_PV / counts_PV.sum(dim=1, keepdim=True)).log())

    def remember(
        self, tokens_BLP: torch.Tensor, action: torch.Tensor, state: State | None = None
    ) -> tuple[torch.Tensor, State]:
        """What the past says of each token of the next frame, (B, L, P, EMBEDDING), and the memory."""
        embedded_BLPE = self.token(tokens_BLP)
        inputs = torch.cat([embedded_BLPE.flatten(start_dim=2), as_vectors(action, self.actions)], dim=-1)
        features, state = self.lstm(inputs, state)
        return self.head(features).unflatten(-1, (-1, EMBEDDING)) + self.stays * embedded_BLPE, state

    def log_probs(
        self, said_NPE: torch.Tensor, before_NPE: torch.Tensor, usual_PV: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of some places' tokens, (N, P, V), from what the past says of them and the embedded tokens before them; and the
        GRU's memory."""
        seen, state = self.places(torch.cat([said_NPE, before_NPE], dim=-1), state)
        return ((said_NPE + self.given(seen)) @ self.token.weight.T + usual_PV).log_softmax(dim=-1), state

    def nll(self, window: Window) -> torch.Tensor:
        """Of the next tokens, in nats: (B, L)."""
        said_BLPE, _ = self.remember(window[TOKENS], window["action"])
        coming_NP = window["next_tokens"].flatten(end_dim=1)
        before_NPE = functional.pad(self.token(coming_NP)[:, :-1], (0, 0, 1, 0))
        log_probs, _ = self.log_probs(said_BLPE.flatten(end_dim=1), before_NPE, self.usual)
        nll_NP = functional.nll_loss(log_probs.transpose(1, 2), coming_NP, reduction="none")
        return nll_NP.sum(dim=-1).unflatten(0, said_BLPE.shape[:2])

    def imagine(self, tokens_B1P: torch.Tensor, action: torch.Tensor, state: State) -> tuple[torch.Tensor, torch.Tensor, State]:
        """A draw of the next tokens, their expected features (B, 1, F), and the memory."""
        said_B1PE, state = self.remember(tokens_B1P, action, state)
        before, within = torch.zeros_like(said_B1PE[:, :, 0]), None
        drawn, expected = [], []
        for said_B1E, usual_V in zip(said_B1PE.unbind(dim=2), self.usual, strict=True):
            log_probs, within = self.log_probs(said_B1E, before, usual_V, within)
            drawn.append(torch.distributions.Categorical(logits=log_probs, validate_args=False).sample())
            expected.append(log_probs.exp() @ self.table)
            before = self.token(drawn[-1])
        return torch.stack(drawn, dim=-1), torch.cat(expected, dim=-1), state

    def unlearned(self, sample: Window) -> dict[str, Any]:
        """As `Vectors.unlearned`."""
        found = token_baselines(sample, self.num_values)
        return {
            "constant": lambda window: found["frequencies"](window).losses(window)[0],
            "staying": lambda window: found["last tokens"](window).losses(window)[0],
        }


Dynamics = Vectors | TokenRnn


def token_table(model: Tokenizer) -> torch.Tensor:
    """What the decoder gets for each value of a token: float32 (V, D); one-hot vectors if every token has its own classes."""
    if isinstance(model, GridTokenizer):
        with torch.no_grad():
            return model.codes_of(torch.arange(model.num_values)[:, None, None])[:, 0, 0].clone()
    return torch.eye(model.num_values)


def features_of(model: Autoencoder, columns: dict[str, np.ndarray]) -> torch.Tensor:
    """What a linear probe reads of stored latents: mu, or what the decoder gets for the tokens: float32 (T, F)."""
    if isinstance(model, Tokenizer):
        return token_table(model)[torch.from_numpy(columns[TOKENS].astype(np.int64))].flatten(start_dim=1)
    return torch.from_numpy(columns["mu"]).float().flatten(start_dim=1)


def draws_of(features_TF: torch.Tensor, columns: dict[str, np.ndarray], generator: torch.Generator) -> torch.Tensor:
    """What the dynamics model sees of stored latents: a draw of z, or for tokens the features as they are: float32 (T, F)."""
    if "logvar" not in columns:
        return features_TF
    std_TF = torch.from_numpy(columns["logvar"]).float().flatten(start_dim=1).mul(0.5).exp()
    return features_TF + std_TF * torch.randn(features_TF.shape, generator=generator)


def flat(window: Window) -> Window:
    """A window whose latents, whatever their shape, are rows: (B, L, Z) or (B, L, P)."""
    names = ("z", "next_z", TOKENS, "next_tokens")
    return {name: column.flatten(start_dim=2) if name in names else column for name, column in window.items()}


def learn_dynamics(latents: Path, model: Autoencoder, steps: int, seed: int) -> tuple[Dynamics, dict[str, float]]:
    """A dynamics model, and nats a frame on held-out transitions: its own, and those of forecasts that learn less."""
    sequences = partial(LatentSequences, latents, length=LENGTH, seed=seed)
    train, heldout = sequences(split="train"), sequences(split="held-out")
    torch.manual_seed(seed)
    sample = flat(train.sample_batch(FIT_WINDOWS))
    is_tokens = isinstance(model, Tokenizer)
    dynamics = TokenRnn(sample, token_table(model), train.action_space) if is_tokens else Vectors(sample, train.action_space)

    def loss_of(window: Window) -> tuple[torch.Tensor, dict[str, float]]:
        nll = dynamics.nll(window).mean()
        return nll, {"nll": nll.item()}

    batches = (flat(train.sample_batch(BATCH)) for _ in range(steps))
    minimise(dynamics, loss_of, batches, steps, LEARNING_RATES[dynamics.kind], Silent())
    dynamics.eval()
    return dynamics, measured({"nll": dynamics.nll, **dynamics.unlearned(sample)}, heldout)


@torch.no_grad()
def measured(nlls: dict[str, Any], data: LatentSequences) -> dict[str, float]:
    """The mean of each over the same transitions: all disjoint windows, and one draw of their latents."""
    indices, draw = disjoint(data), torch.Generator().manual_seed(0)
    totals = dict.fromkeys(nlls, 0.0)
    for part in np.array_split(indices, -(-len(indices) // BATCH)):
        window = flat(data.batch(part, draw))
        for name, nll in nlls.items():
            totals[name] += float(nll(window).double().sum())
    return {name: total / (len(indices) * data.length) for name, total in totals.items()}


@torch.no_grad()
def dream(dynamics: Dynamics, latents: torch.Tensor, action: torch.Tensor, num_steps: int, seed: int) -> torch.Tensor:
    """The expected features of each dreamed latent, (S, H, F), the mean of `DREAMS` dreams from each start.

    `latents` (S, WARM_UP, …) are real. Dream step h is the latent that action row WARM_UP + h - 1 leads to, so `action` needs
    WARM_UP + H - 1 rows.
    """
    torch.manual_seed(seed)
    rows = WARM_UP - 1
    latents, action = (values.repeat(DREAMS, *[1] * (values.ndim - 1)) for values in (latents, action))
    _, state = dynamics.remember(latents[:, :rows], action[:, :rows])
    now, seen = latents[:, rows:], []
    for t in range(rows, rows + num_steps):
        now, expected, state = dynamics.imagine(now, action[:, t : t + 1], state)
        seen.append(expected.unflatten(0, (DREAMS, -1)).mean(dim=0))
    return torch.cat(seen, dim=1)


def error_curves(read_SHK: np.ndarray, true_SHK: np.ndarray, std_K: np.ndarray) -> np.ndarray:
    """How far a reading is from the recorded state after each step, in standard deviations: root mean square over dreams,
    (H, K), and in the last column over the variables too: (H, K + 1)."""
    square_HK = np.square((read_SHK - true_SHK) / std_K).mean(axis=0)
    return np.sqrt(np.column_stack([square_HK, square_HK.mean(axis=1)]))
