"""A transformer that learns from the tokens of `wm-encode`: a world model over whole numbers.

    python examples/train_token_transformer.py --latents runs/tokens/latents --vae runs/tokens/fsq --out runs/tokens/transformer

A window is one long sequence: the tokens of a frame, then the action taken on it, then those of the next frame, and so on.
Each sees its own frame and all before it, and no later one. Where a token of frame t stands, the token at the same place of
frame t+1 is forecast; where the action stands, the reward and whether the episode ends. It is judged on held-out episodes
beside two forecasts that learn less; `dream.gif` shows it going on alone, and `transformer.safetensors` holds its weights.

The loss is a likelihood in nats: of the tokens of a frame, which are independent given the past; a Gaussian's of fixed width
for the reward; Bernoulli's for the end. So all tokens of a frame are drawn at once, in one step. Models that draw one after
the other, each given those before it, need P steps, and do not mix two futures in a frame (IRIS: Micheli et al. 2023,
arXiv:2209.00588).

Legend: B batch, L window length in transitions, P tokens of a frame, V values of a token, D width.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the cores to others

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import safetensors.torch
import torch
from annotated_types import Ge, Gt
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional
from train_mdn_rnn import (
    PANEL_GAP,
    Window,
    as_vectors,
    disjoint,
    log_odds,
    mean_and_std,
    minimise,
    moved,
    require_rewards,
    to_gif,
)

from worldmodel_v.autoencoders import Autoencoder, load
from worldmodel_v.cli.main import run
from worldmodel_v.data import LatentSequences
from worldmodel_v.device import resolve_device
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.inspection import require_binding
from worldmodel_v.progress import Progress
from worldmodel_v.schema import ActionSpace, Column
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.publish import publish

WIDTH, LAYERS, HEADS = 128, 3, 4
FIT_WINDOWS, EVALUATION_BATCH = 512, 16


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Train a transformer on tokens, measure it on held-out episodes, and record a dream."""

    latents: Path
    """The tokens that wm-encode wrote."""

    vae: Path
    """The autoencoder that made them; it decodes the dream."""

    out: Path
    """Where metrics.json, transformer.safetensors and dream.gif go."""

    steps: Annotated[int, Ge(1)] = 500
    """Optimiser steps."""

    batch_size: Annotated[int, Ge(1)] = 8
    """Windows in a step."""

    length: Annotated[int, Ge(2)] = 8
    """Transitions in a window, which is all that a forecast sees; shorter episodes do not count."""

    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Adam's step size at the start; it falls to zero along a cosine."""

    holdout_every: int | None = None
    """Every k-th episode is held out; by default as in the autoencoder's training, which the latents record."""

    dream_steps: Annotated[int, Ge(1)] = 50
    """How far it dreams, after --length steps of a held-out episode, which must be as long as both together."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the logits of the dream: above 1 it is more random, below 1 less."""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds the weights, the windows and the dream."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        require_settings(self)


@dataclass(frozen=True)
class Scores:
    """How far forecasts were from what came: means over transitions."""

    nll_bits: float
    """Negative log-likelihood of the next frame's tokens, in bits summed over them; lower is better."""

    accuracy: float
    """The share of tokens whose most probable value came."""

    reward_mse: float
    termination_log_loss: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `metrics.json` holds."""

    steps: int
    tokens: int
    num_values: int
    train_nll_bits: float
    """Of the last training step's batch; far below the held-out one it would tell of overfitting."""

    heldout_transitions: int
    scores: dict[str, Scores]


class Forecast(NamedTuple):
    """What is said about transitions before they are seen."""

    log_probs: torch.Tensor
    """float (B, L, P, V)"""

    reward: torch.Tensor
    termination: torch.Tensor
    """The logit of a termination; both (B, L), or one number for all."""

    def losses(self, window: Window) -> tuple[torch.Tensor, ...]:
        """In nats, (B, L) each: NLL of the tokens; whether tokens are the most probable ones (a share); squared error of the
        rewards; log-loss of the terminations."""
        coming = window["next_tokens"].flatten(start_dim=2)
        ended = window["terminated"].float()
        nll = -self.log_probs.gather(-1, coming[..., None])[..., 0].sum(dim=-1)
        accuracy = (self.log_probs.argmax(dim=-1) == coming).float().mean(dim=-1)
        log_loss = functional.binary_cross_entropy_with_logits(self.termination.expand_as(ended), ended, reduction="none")
        return nll, accuracy, (self.reward - window["reward"]).square(), log_loss


Forecaster = Callable[[Window], Forecast]


class TokenTransformer(nn.Module):
    """Forecasts from the frames and actions up to t; logits are products with the tokens' own embeddings."""

    def __init__(self, sample: Window, num_values: int, actions: ActionSpace, length: int) -> None:
        """`sample` holds windows of the training data: the averages from which reward and end are forecast."""
        super().__init__()
        self.actions, self.length = actions, length
        num_tokens = math.prod(sample["tokens"].shape[2:])
        self.token, self.action = nn.Embedding(num_values, WIDTH), nn.Linear(actions.vector_size, WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(num_tokens + 1, WIDTH))
        self.time = nn.Parameter(0.1 * torch.randn(length, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.outcome = nn.Linear(WIDTH, 2)
        self.reward_mean, self.reward_std = (nn.Buffer(values) for values in mean_and_std(sample["reward"]))
        self.usual_termination = nn.Buffer(log_odds(sample["terminated"]))

    def forward(self, tokens_BLP: torch.Tensor, action: torch.Tensor) -> Forecast:
        """For windows of at most `length` transitions."""
        num_frames, num_each = tokens_BLP.shape[1], tokens_BLP.shape[2] + 1
        acted = self.action(as_vectors(action, self.actions))[:, :, None]
        x = torch.cat([self.token(tokens_BLP), acted], dim=2) + self.place + self.time[:num_frames]
        frame = torch.arange(num_frames, device=x.device).repeat_interleave(num_each)
        is_later = frame[None, :] > frame[:, None]
        y = self.layers(x.flatten(1, 2), mask=is_later).unflatten(1, (num_frames, num_each))
        logits = y[:, :, :-1] @ self.token.weight.T / math.sqrt(WIDTH)
        reward, termination = self.outcome(y[:, :, -1]).unbind(dim=-1)
        reward = self.reward_mean + self.reward_std * reward
        return Forecast(logits.log_softmax(dim=-1), reward, self.usual_termination + termination)

    def forecast(self, window: Window) -> Forecast:
        """Of every transition of a window, from what came before it there."""
        return self(window["tokens"].flatten(start_dim=2), window["action"])


def train_and_dream(config: TransformerConfig, progress: Progress) -> Report:
    """The whole flow: read, train, measure, dream. Raises WorldModelError."""
    device = resolve_device(config.device)
    column = require_tokens(config.latents)
    require_rewards(config.latents)
    sequences = partial(LatentSequences, config.latents, seed=config.seed, holdout_every=config.holdout_every)
    train = sequences(length=config.length, split="train")
    heldout = sequences(length=config.length, split="held-out")
    to_dream = sequences(length=config.length + config.dream_steps, split="held-out")
    require_binding(config.latents, data=None, vae=config.vae)
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    sample = moved(train.sample_batch(FIT_WINDOWS), device)
    assert column.num_values is not None
    model = TokenTransformer(sample, column.num_values, train.action_space, config.length).to(device)
    train_nll = fit(model, train, config, device, progress)
    forecasters = {"transformer": model.forecast, **baselines(sample, column.num_values)}
    report = Report(
        steps=config.steps,
        tokens=math.prod(column.row_shape),
        num_values=column.num_values,
        train_nll_bits=train_nll,
        heldout_transitions=len(disjoint(heldout)) * config.length,
        scores=measure(forecasters, heldout, device),
    )
    gif = dream(model, load(config.vae).model.to(device), to_dream, config, device)
    publish(config.out / "dream.gif", gif)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    publish(config.out / "transformer.safetensors", safetensors.torch.save(weights))
    publish(config.out / "metrics.json", (json.dumps(asdict(report), indent=2) + "\n").encode())
    progress.event("finished", f"its weights, metrics.json and the dream, dream.gif, are in {config.out}", out=config.out)
    return report


def require_tokens(latents: Path) -> Column:
    """The column of the tokens; raises DatasetNotUsable if the latents are no tokens."""
    columns = open_dataset(latents).schema.by_role("latent")
    if [column.name for column in columns] != ["tokens"] or columns[0].num_values is None:
        names = ", ".join(column.name for column in columns)
        remedy = "train with --autoencoder fsq, or another that stores tokens, and encode with it"
        raise DatasetNotUsable(f"holds no tokens, but {names or 'no latents'}", where=latents, remedy=remedy)
    return columns[0]


def fit(
    model: TokenTransformer, data: LatentSequences, config: TransformerConfig, device: torch.device, progress: Progress
) -> float:
    """Maximise the likelihood of what came; returns the tokens' NLL at the last step, in bits a frame."""

    def loss_of(window: Window) -> tuple[torch.Tensor, dict[str, float]]:
        nll, _, squared_error, log_loss = (values.mean() for values in model.forecast(window).losses(window))
        loss = nll + 0.5 * squared_error / model.reward_std.square() + log_loss
        return loss, {"bits": nll.item() / math.log(2)}

    batches = (moved(data.sample_batch(config.batch_size), device) for _ in range(config.steps))
    return minimise(model, loss_of, batches, config.steps, config.learning_rate, progress)["bits"]


def baselines(sample: Window, num_values: int) -> dict[str, Forecaster]:
    """Forecasts that learn less, fitted to windows of the training data, by Laplace's rule; they say the average reward.

    Each place's frequencies; and the token that is there, with the share of tokens that stayed, otherwise those frequencies.
    """
    coming, here = (sample[name].flatten(start_dim=2).flatten(end_dim=1) for name in ("next_tokens", "tokens"))
    counts_PV = torch.full((coming.shape[1], num_values), 1 / num_values, device=coming.device)
    counts_PV.scatter_add_(1, coming.T, torch.ones_like(coming.T, dtype=torch.float32))
    frequencies_PV = counts_PV / counts_PV.sum(dim=1, keepdim=True)
    stayed = ((here == coming).sum() + 1) / (coming.numel() + 2)
    average = sample["reward"].mean(), log_odds(sample["terminated"])

    def constant(window: Window) -> Forecast:
        return Forecast(frequencies_PV.log().expand(*window["reward"].shape, -1, -1), *average)

    def last(window: Window) -> Forecast:
        same = functional.one_hot(window["tokens"].flatten(start_dim=2), num_values)
        return Forecast((stayed * same + (1 - stayed) * frequencies_PV).log(), *average)

    return {"last tokens": last, "frequencies": constant}


@torch.no_grad()
def measure(forecasters: dict[str, Forecaster], data: LatentSequences, device: torch.device) -> dict[str, Scores]:
    """Every forecast on the very same transitions: all disjoint windows of `data`."""
    windows = disjoint(data)
    totals = {name: torch.zeros(4, dtype=torch.float64) for name in forecasters}
    for indices in np.array_split(windows, math.ceil(len(windows) / EVALUATION_BATCH)):
        window = moved(data.batch(indices), device)
        for name, forecast in forecasters.items():
            totals[name] += torch.stack([loss.double().sum().cpu() for loss in forecast(window).losses(window)])
    means = {name: (total / (len(windows) * data.length)).tolist() for name, total in totals.items()}
    return {name: Scores(nll / math.log(2), *others) for name, (nll, *others) in means.items()}


@torch.no_grad()
def dream(
    model: TokenTransformer, vae: Autoencoder, data: LatentSequences, config: TransformerConfig, device: torch.device
) -> bytes:
    """A GIF of how a window of `data` goes on: left as recorded, right as dreamed given the recorded actions."""
    window, warmup = moved(data.batch(np.array([len(data) // 2])), device), config.length
    recorded, action = window["tokens"], window["action"]
    seen = recorded[:, : warmup + 1].flatten(start_dim=2)
    for t in range(warmup, data.length):
        since = t + 1 - config.length
        log_probs = model(seen[:, since:], action[:, since : t + 1]).log_probs[:, -1]
        coming = torch.distributions.Categorical(logits=log_probs / config.temperature).sample()
        seen = torch.cat([seen, coming[:, None]], dim=1)
    panels = (window["next_tokens"][0, warmup - 1 :], seen[0, warmup:].view(-1, *recorded.shape[2:]))
    left, right = (to_frames(vae.decode({"tokens": tokens}, vae.typical_condition(len(tokens)))) for tokens in panels)
    gap = np.full_like(left[:, :, :PANEL_GAP], 255)
    return to_gif(np.concatenate([left, gap, right], axis=2))


def print_report(report: Report) -> None:
    """A table of all scores."""
    tokens = f"{report.tokens} tokens of {report.num_values} values a frame"
    table = Table(title=f"Forecasts of {report.heldout_transitions} held-out transitions, {tokens}", title_justify="left")
    for heading in ("", "NLL, bits a frame", "tokens right", "reward, MSE", "termination, log-loss"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, scores in report.scores.items():
        figures = f"{scores.nll_bits:.1f}", f"{scores.accuracy:.1%}", f"{scores.reward_mse:.3f}"
        table.add_row(name, *figures, f"{scores.termination_log_loss:.5f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run("train_token_transformer.py", TransformerConfig, train_and_dream, show=print_report)
