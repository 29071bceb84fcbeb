"""An MDN-RNN that learns from the latents of `wm-encode`: the M of a world model, in one file.

    python examples/train_mdn_rnn.py --latents runs/quickstart/latents --vae runs/quickstart/vae --out runs/quickstart/mdn_rnn

An LSTM reads (z_t, a_t) and gives, for every dimension of z_t+1 by itself, a mixture of Gaussians. It is trained on the
windows of `LatentSequences`, whose latents are drawn anew at every visit (which keeps it from learning a small dataset by
heart), and judged by the negative log-likelihood of held-out latents, beside that of a Gaussian that knows nothing of the
past. `dream.png` shows it going on alone.
Source: Ha & Schmidhuber 2018 (arXiv:1803.10122); Bishop 1994, Mixture Density Networks.

Legend: B batch, L window length in transitions, Z latent, A action, K Gaussians in a mixture.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.distributions import Normal
from torch.nn import functional

from worldmodel_v.cli.main import run
from worldmodel_v.data import LatentSequences
from worldmodel_v.errors import ConfigError, TrainingDiverged
from worldmodel_v.evaluate import frame_grid, to_png
from worldmodel_v.evaluate.grids import to_frames
from worldmodel_v.inspection import require_binding
from worldmodel_v.models import VAE, load_vae, resolve_device
from worldmodel_v.progress import Progress
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.publish import publish

HIDDEN = 256
MIXTURES = 5
MIN_LOG_SIGMA, MAX_LOG_SIGMA = -5.0, 3.0
EVALUATION_BATCH = 64
DREAM_COLUMNS = 10

State = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class MdnRnnConfig:
    """Train an MDN-RNN on latents, measure it on held-out episodes, and draw a dream."""

    latents: Path
    """The latents that wm-encode wrote."""

    vae: Path
    """The VAE that made them; it decodes the dream."""

    out: Path
    """Where metrics.json and dream.png go."""

    steps: int = 1000
    """Optimiser steps."""

    batch_size: int = 32
    """Windows in a step."""

    length: int = 32
    """Transitions in a window; every held-out episode that counts must be as long."""

    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls to zero along a cosine."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this total norm."""

    holdout_every: int = 8
    """Every k-th episode is held out, as the VAE's training held them out."""

    temperature: float = 1.0
    """Of the dream: above 1 it is more random, below 1 less."""

    seed: int = 0
    """Seeds the weights, the windows, the latents and the dream."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "batch_size": 1, "length": 2, "holdout_every": 2, "seed": 0}
        for name, bound in at_least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {bound}, got {getattr(self, name)}")
        for name in ("learning_rate", "max_grad_norm", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Nll:
    """A negative log-likelihood, in nats."""

    per_step: float
    """Summed over the latent dimensions."""

    per_dim: float
    of_each_dim: list[float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `metrics.json` holds; both likelihoods are those of the same draw of the held-out latents."""

    steps: int
    train_windows: int
    heldout_transitions: int
    train_nll_per_step: float
    """Of the last training step's batch; far below the held-out one it would tell of overfitting."""

    mdn_rnn: Nll
    constant_gaussian: Nll


class Mixture(NamedTuple):
    """One mixture of K Gaussians for each latent dimension; every field is (B, L, Z, K)."""

    log_weight: torch.Tensor
    mean: torch.Tensor
    log_sigma: torch.Tensor

    def log_prob(self, z_BLZ: torch.Tensor) -> torch.Tensor:
        """log p of each dimension: (B, L, Z). A sum of exponentials of logarithms, so nothing underflows."""
        standardised = (z_BLZ[..., None] - self.mean) * torch.exp(-self.log_sigma)
        log_gaussian = -0.5 * (standardised.square() + math.log(2 * math.pi)) - self.log_sigma
        return torch.logsumexp(self.log_weight + log_gaussian, dim=-1)

    def sample(self, temperature: float) -> torch.Tensor:
        """(B, L, Z): the weights' logits divided by the temperature, the variances multiplied by it, as in the paper."""
        weight = torch.softmax(self.log_weight / temperature, dim=-1)
        chosen = torch.multinomial(weight.flatten(end_dim=-2), 1).view(*weight.shape[:-1], 1)
        mean, log_sigma = (field.gather(-1, chosen)[..., 0] for field in (self.mean, self.log_sigma))
        return mean + math.sqrt(temperature) * log_sigma.exp() * torch.randn_like(mean)


class MdnRnn(nn.Module):
    """p(z_t+1 | z_1..t, a_1..t): an LSTM with a mixture density head."""

    def __init__(self, latent_dim: int, action_size: int) -> None:
        super().__init__()
        self.action_size = action_size
        self.lstm = nn.LSTM(latent_dim + action_size, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 3 * latent_dim * MIXTURES)

    def forward(self, z_BLZ: torch.Tensor, action: torch.Tensor, state: State | None = None) -> tuple[Mixture, State]:
        """`action` is float (B, L, A), or int64 (B, L) for discrete ones; `state` is what the step before gave."""
        action_BLA = action if action.is_floating_point() else functional.one_hot(action, self.action_size).float()
        features, state = self.lstm(torch.cat([z_BLZ, action_BLA], dim=-1), state)
        logits, mean, log_sigma = self.head(features).unflatten(-1, (3, z_BLZ.shape[-1], MIXTURES)).unbind(dim=-3)
        return Mixture(torch.log_softmax(logits, dim=-1), mean, log_sigma.clamp(MIN_LOG_SIGMA, MAX_LOG_SIGMA)), state


def train_and_dream(config: MdnRnnConfig, progress: Progress) -> Report:
    """The whole flow: read, train, measure, draw. Raises WorldModelError."""
    device = resolve_device(config.device)
    train, heldout = (
        LatentSequences(config.latents, length=config.length, seed=config.seed, split=split, holdout_every=config.holdout_every)
        for split in ("train", "held-out")
    )
    require_binding(config.latents, data=None, vae=config.vae)
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = MdnRnn(train.latent_dim, train.num_actions or _num_choices(config.latents)).to(device)
    train_nll = fit(model, train, config, device, progress)
    mdn_rnn, constant = measure(model, constant_gaussian(train), heldout, device)
    report = Report(
        steps=config.steps,
        train_windows=len(train),
        heldout_transitions=len(_disjoint(heldout)) * config.length,
        train_nll_per_step=train_nll,
        mdn_rnn=mdn_rnn,
        constant_gaussian=constant,
    )
    picture = dream_picture(model, load_vae(config.vae).model.to(device), heldout, config.temperature, device)
    publish(config.out / "dream.png", to_png(picture))
    publish(config.out / "metrics.json", (json.dumps(asdict(report), indent=2) + "\n").encode())
    return report


def fit(model: MdnRnn, data: LatentSequences, config: MdnRnnConfig, device: torch.device, progress: Progress) -> float:
    """Minimise the NLL of the next latent; returns that of the last step, in nats summed over Z."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    task = progress.task("train", config.steps, "steps")
    for step in range(1, config.steps + 1):
        window = {name: column.to(device) for name, column in data.sample_batch(config.batch_size).items()}
        mixture, _ = model(window["z"], window["action"])
        loss = -mixture.log_prob(window["next_z"]).sum(dim=-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        if not torch.isfinite(grad_norm):
            raise TrainingDiverged(f"step {step}: the gradient is NaN or infinite; try a lower --learning-rate")
        optimizer.step()
        schedule.step()
        task.advance(nll=loss.item())
    task.close()
    return loss.item()


def constant_gaussian(data: LatentSequences) -> Normal:
    """What is known without looking at the past: mean and standard deviation of each latent dimension."""
    targets = data.batch(_disjoint(data))["next_z"].flatten(end_dim=1)
    return Normal(targets.mean(dim=0), targets.std(dim=0))


@torch.no_grad()
def measure(model: MdnRnn, baseline: Normal, data: LatentSequences, device: torch.device) -> tuple[Nll, Nll]:
    """The NLL of model and baseline on the very same targets."""
    log_probs: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    windows = _disjoint(data)
    for indices in np.array_split(windows, math.ceil(len(windows) / EVALUATION_BATCH)):
        window = data.batch(indices)
        mixture, _ = model(window["z"].to(device), window["action"].to(device))
        log_probs[0].append(mixture.log_prob(window["next_z"].to(device)).cpu())
        log_probs[1].append(baseline.log_prob(window["next_z"]))
    nll_Z, baseline_nll_Z = (-torch.cat(parts).flatten(end_dim=1).mean(dim=0) for parts in log_probs)
    return _nll(nll_Z), _nll(baseline_nll_Z)


@torch.no_grad()
def dream_picture(model: MdnRnn, vae: VAE, data: LatentSequences, temperature: float, device: torch.device) -> np.ndarray:
    """The second half of a window of `data`, decoded: as recorded (upper row), and as dreamed from its first frame on."""
    window = {name: column.to(device) for name, column in data.batch(np.array([len(data) // 2])).items()}
    z_BLZ, action = window["z"], window["action"]
    warmup = data.length // 2
    _, state = model(z_BLZ[:, :warmup], action[:, :warmup])
    dreamed = [z_BLZ[:, warmup : warmup + 1]]
    for t in range(warmup, data.length):
        mixture, state = model(dreamed[-1], action[:, t : t + 1], state)
        dreamed.append(mixture.sample(temperature))
    recorded_NZ, dreamed_NZ = window["next_z"][0, warmup - 1 :], torch.cat(dreamed, dim=1)[0]
    times = np.unique(np.linspace(0, len(dreamed) - 1, DREAM_COLUMNS).astype(int))
    return frame_grid([to_frames(vae.decode(latents[times])) for latents in (recorded_NZ, dreamed_NZ)])


def print_report(report: Report) -> None:
    """A table of both likelihoods."""
    table = Table(title=f"Negative log-likelihood of {report.heldout_transitions} held-out transitions", title_justify="left")
    for heading in ("", "nats per step", "per dimension"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("MDN-RNN", f"{report.mdn_rnn.per_step:.2f}", f"{report.mdn_rnn.per_dim:.3f}")
    table.add_row("constant Gaussian", f"{report.constant_gaussian.per_step:.2f}", f"{report.constant_gaussian.per_dim:.3f}")
    Console(highlight=False).print(table)


def _nll(nll_Z: torch.Tensor) -> Nll:
    return Nll(float(nll_Z.sum()), float(nll_Z.mean()), nll_Z.tolist())


def _disjoint(data: LatentSequences) -> np.ndarray:
    """Every L-th window: within an episode they are consecutive, and no transition comes twice."""
    return np.arange(0, len(data), data.length)


def _num_choices(latents: Path) -> int:
    """How many discrete actions the dataset knows."""
    dataset = open_dataset(latents)
    highest = -1
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            highest = max(highest, int(shard.rows("action").max()))
    return highest + 1


if __name__ == "__main__":
    run("train_mdn_rnn.py", MdnRnnConfig, train_and_dream, show=print_report)
