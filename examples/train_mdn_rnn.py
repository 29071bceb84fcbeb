"""An MDN-RNN that learns from the latents of `wm-encode`: the M of a world model, in one file.

    python examples/train_mdn_rnn.py --latents runs/quickstart/latents --vae runs/quickstart/vae --out runs/quickstart/mdn_rnn

An LSTM reads (z_t, a_t) and forecasts what the action brings: for every dimension of z_t+1 by itself a mixture of Gaussians,
the reward, and whether the episode ends. It is trained on the windows of `LatentSequences`, whose latents are drawn anew at
every visit (which keeps it from learning a small dataset by heart), and judged on held-out episodes beside three forecasts
that learn less; `dream.gif` shows it going on alone.

The loss is a likelihood in nats, its parts unweighted: the mixture's of z_t+1 (Ha & Schmidhuber 2018, arXiv:1803.10122; Bishop
1994), a Gaussian's of fixed width for the reward (squared errors, as in ctallec/world-models), Bernoulli's for the end (as
there; the paper's code for Doom weighs ends tenfold, after which the forecast is no probability any more).

Legend: B batch, L window length in transitions, Z latent, A action, K Gaussians in a mixture.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the cores to others

import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import safetensors.torch
import torch
from annotated_types import Ge, Gt
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal
from torch.nn import functional

from worldmodel_v.autoencoders import artifact
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder, load_vae
from worldmodel_v.cli.main import run
from worldmodel_v.data import LatentSequences
from worldmodel_v.device import resolve_device
from worldmodel_v.errors import DatasetNotUsable, ModelNotUsable, TrainingFailed
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.inspection import require_binding
from worldmodel_v.progress import Progress
from worldmodel_v.schema import ActionSpace
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.publish import publish
from worldmodel_v.surface import option

HIDDEN = 256
MIXTURES = 5
MIN_LOG_SIGMA, MAX_LOG_SIGMA = -6.0, 3.0
MAX_GRAD_NORM = 1.0
FIT_WINDOWS, RIDGE = 2048, 1e-3
EVALUATION_BATCH = 64
PANEL_SCALE, PANEL_GAP, LABEL_HEIGHT, FRAME_MS, COLOURS = 3, 2, 26, 40, 64

WEIGHTS = "mdn_rnn.safetensors"

State = tuple[torch.Tensor, torch.Tensor]
Window = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class MdnRnnConfig:
    """Train an MDN-RNN on latents, measure it on held-out episodes, and record a dream."""

    latents: Path
    """The latents that wm-encode wrote."""

    vae: Path
    """The VAE that made them; it decodes the dream."""

    out: Path
    """Where the weights, metrics.json and dream.gif go."""

    steps: Annotated[int, Ge(1)] = 1000
    """Optimiser steps."""

    batch_size: Annotated[int, Ge(1)] = 32
    """Windows in a step."""

    length: Annotated[int, Ge(2)] = 32
    """Transitions in a window; shorter episodes do not count."""

    learning_rate: Annotated[float, Gt(0)] = 6e-3
    """Adam's step size at the start; it falls to zero along a cosine."""

    holdout_every: int | None = None
    """Every k-th episode is held out; by default as in the VAE's training, which the latents record."""

    dream_steps: Annotated[int, Ge(1)] = 100
    """How far it dreams, after --length steps of a held-out episode, which must be as long as both together."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Of the dream: above 1 it is more random, below 1 less."""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds the weights, the windows, the latents and the dream."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        require_settings(self)


@dataclass(frozen=True)
class Scores:
    """How far forecasts were from what came: means over transitions, lower is better."""

    nll: float
    """Negative log-likelihood of the next latent, in nats summed over its dimensions."""

    reward_mse: float
    termination_log_loss: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `metrics.json` holds; all scores are those of the same draw of the held-out latents."""

    steps: int
    train_windows: int
    train_nll: float
    """Of the last training step's batch; far below the held-out one it would tell of overfitting."""

    heldout_transitions: int
    heldout_terminations: int
    scores: dict[str, Scores]


class Forecast(NamedTuple):
    """What is said about transitions before they are seen: the distribution of each dimension of the next latent, whose
    log_prob is (B, L, Z); the expected reward and the logit of a termination, (B, L) or one number for all."""

    next_z: Distribution
    reward: torch.Tensor
    termination: torch.Tensor

    def losses(self, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """NLL of the latents (B, L, Z), squared error of the rewards (B, L), log-loss of the terminations (B, L)."""
        ended = window["terminated"].float()
        log_loss = functional.binary_cross_entropy_with_logits(self.termination.expand_as(ended), ended, reduction="none")
        return -self.next_z.log_prob(window["next_z"]), (self.reward - window["reward"]).square(), log_loss


Forecaster = Callable[[Window], Forecast]


class MdnRnn(nn.Module):
    """Forecasts from z_1..t and a_1..t: an LSTM with a mixture density head, which sees standardised latents."""

    def __init__(self, sample: Window, actions: ActionSpace) -> None:
        """`sample` holds windows of the training data: spreads, and averages from which all forecasts begin."""
        super().__init__()
        self.actions = actions
        latent_dim = sample["z"].shape[-1]
        self.lstm = nn.LSTM(latent_dim + actions.vector_size, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 2 + 3 * latent_dim * MIXTURES)
        self.z_mean, self.z_std = (nn.Buffer(values) for values in mean_and_std(sample["z"]))
        self.reward_mean, self.reward_std = (nn.Buffer(values) for values in mean_and_std(sample["reward"]))
        self.usual_termination = nn.Buffer(log_odds(sample["terminated"]))

    def forward(
        self, z_BLZ: torch.Tensor, action: torch.Tensor, state: State | None = None, temperature: float = 1.0
    ) -> tuple[Forecast, State]:
        """`state` is what the step before gave; the temperature divides logits and multiplies variances, as in the paper."""
        features, state = self.remember(z_BLZ, action, state)
        reward, termination, mixtures = self.head(features).tensor_split((1, 2), dim=-1)
        logits, mean, log_sigma = mixtures.unflatten(-1, (-1, 3, MIXTURES)).unbind(dim=-2)
        mean = self.z_mean[:, None] + self.z_std[:, None] * mean
        sigma = self.z_std[:, None] * log_sigma.clamp(MIN_LOG_SIGMA, MAX_LOG_SIGMA).exp() * math.sqrt(temperature)
        weights = Categorical(logits=logits / temperature, validate_args=False)
        next_z = MixtureSameFamily(weights, Normal(mean, sigma, validate_args=False), validate_args=False)
        reward, termination = self.reward_mean + self.reward_std * reward, self.usual_termination + termination
        return Forecast(next_z, reward[..., 0], termination[..., 0]), state

    def remember(self, z_BLZ: torch.Tensor, action: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """What the LSTM makes of them, (B, L, HIDDEN), and its state, which begins with the last of that: h."""
        inputs = torch.cat([(z_BLZ - self.z_mean) / self.z_std, as_vectors(action, self.actions)], dim=-1)
        features: tuple[torch.Tensor, State] = self.lstm(inputs, state)
        return features

    def forecast(self, window: Window) -> Forecast:
        """Of every transition of a window, from what came before it there."""
        return self(window["z"], window["action"])[0]


def train_and_dream(config: MdnRnnConfig, progress: Progress) -> Report:
    """The whole flow: read, train, measure, dream. Raises WorldModelError."""
    device = resolve_device(config.device)
    require_gaussians(config.latents)
    require_rewards(config.latents)
    sequences = partial(LatentSequences, config.latents, seed=config.seed, holdout_every=config.holdout_every)
    train = sequences(length=config.length, split="train")
    heldout = sequences(length=config.length, split="held-out")
    to_dream = sequences(length=config.length + config.dream_steps, split="held-out")
    require_binding(config.latents, data=None, vae=config.vae)
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    sample = moved(train.sample_batch(FIT_WINDOWS), device)
    model = MdnRnn(sample, train.action_space).to(device)
    train_nll = fit(model, train, config, device, progress)
    windows = disjoint(heldout)
    report = Report(
        steps=config.steps,
        train_windows=len(train),
        train_nll=train_nll,
        heldout_transitions=len(windows) * config.length,
        heldout_terminations=int(heldout.batch(windows)["terminated"].sum()),
        scores=measure({"MDN-RNN": model.forecast, **baselines(sample, model.actions)}, heldout, device),
    )
    gif = dream(model, load_vae(config.vae).model.to(device), to_dream, config, device)
    publish(config.out / "dream.gif", gif)
    publish(config.out / WEIGHTS, saved(model, artifact.describe(config.vae).sha256))
    publish(config.out / "metrics.json", (json.dumps(asdict(report), indent=2) + "\n").encode())
    progress.event("finished", f"its weights, metrics.json and the dream, dream.gif, are in {config.out}", out=config.out)
    return report


def require_gaussians(latents: Path) -> None:
    """Raises DatasetNotUsable if the latents have no distribution from which `z` is drawn, such as tokens."""
    schema = open_dataset(latents).schema
    if "z" not in {draw.name for draw in schema.draws}:
        names = ", ".join(column.name for column in schema.by_role("latent"))
        remedy = "give the latents of a VAE; examples/train_token_transformer.py forecasts tokens"
        raise DatasetNotUsable(
            f"holds {names or 'no latents'}, this model forecasts mu and logvar", where=latents, remedy=remedy
        )


def require_rewards(latents: Path) -> None:
    """Raises DatasetNotUsable if nobody recorded them."""
    if any(column.absent for column in open_dataset(latents).schema.by_role("reward")):
        remedy = "give latents of rollouts with rewards"
        raise DatasetNotUsable("holds no rewards, which this model forecasts too", where=latents, remedy=remedy)


def fit(model: MdnRnn, data: LatentSequences, config: MdnRnnConfig, device: torch.device, progress: Progress) -> float:
    """Maximise the likelihood of what came; returns the latents' NLL at the last step, in nats summed over Z."""

    def loss_of(window: Window) -> tuple[torch.Tensor, dict[str, float]]:
        nll_BLZ, squared_error, log_loss = model.forecast(window).losses(window)
        nll = nll_BLZ.sum(dim=-1).mean()
        loss = nll + 0.5 * squared_error.mean() / model.reward_std.square() + log_loss.mean()
        return loss, {"nll": nll.item()}

    batches = (moved(data.sample_batch(config.batch_size), device) for _ in range(config.steps))
    return minimise(model, loss_of, batches, config.steps, config.learning_rate, progress)["nll"]


def minimise(
    model: nn.Module,
    loss_of: Callable[[Window], tuple[torch.Tensor, dict[str, float]]],
    windows: Iterable[Window],
    steps: int,
    learning_rate: float,
    progress: Progress,
) -> dict[str, float]:
    """Adam along a cosine, a step for each batch of windows. `loss_of` gives the loss and figures; returns the last figures."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    task = progress.task("train", steps, "steps")
    for step, window in enumerate(windows, start=1):
        loss, figures = loss_of(window)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        if not torch.isfinite(grad_norm):
            raise TrainingFailed(
                f"step {step}: the gradient is NaN or infinite", remedy=f"try a lower {option('learning_rate')}"
            )
        optimizer.step()
        schedule.step()
        task.advance(1, **figures)
    task.close()
    return figures


def baselines(sample: Window, actions: ActionSpace) -> dict[str, Forecaster]:
    """Forecasts that learn less, fitted to windows of the training data; where they have no idea, they say the average.

    A Gaussian that knows nothing of the past; z_t plus Gaussian noise; ridge regression from (z_t, a_t, 1), Gaussian residuals.
    """

    def features(window: Window) -> torch.Tensor:
        z, action = window["z"], as_vectors(window["action"], actions)
        return torch.cat([z, action, torch.ones_like(z[..., :1])], dim=-1).double()

    z, next_z, reward, ended = (sample[name].flatten(end_dim=1) for name in ("z", "next_z", "reward", "terminated"))
    x, y = features(sample).flatten(end_dim=1), torch.cat([next_z, reward[:, None]], dim=-1).double()
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], device=x.device), x.T @ y)
    residual_std = (y - x @ weights)[:, :-1].std(dim=0)
    noise = (next_z - z).square().mean(dim=0).sqrt()
    constant = Normal(*mean_and_std(sample["next_z"]))
    average = (reward.mean(), log_odds(ended))

    def linear(window: Window) -> Forecast:
        expected = features(window) @ weights
        return Forecast(Normal(expected[..., :-1], residual_std), expected[..., -1], average[1])

    return {
        "linear": linear,
        "last latent + noise": lambda window: Forecast(Normal(window["z"], noise), *average),
        "constant Gaussian": lambda _: Forecast(constant, *average),
    }


@torch.no_grad()
def measure(forecasters: dict[str, Forecaster], data: LatentSequences, device: torch.device) -> dict[str, Scores]:
    """Every forecast on the very same transitions: all disjoint windows of `data`, and one draw of their latents."""
    windows, draw = disjoint(data), torch.Generator().manual_seed(0)
    totals = {name: torch.zeros(3, dtype=torch.float64) for name in forecasters}
    for indices in np.array_split(windows, math.ceil(len(windows) / EVALUATION_BATCH)):
        window = moved(data.batch(indices, draw), device)
        for name, forecast in forecasters.items():
            totals[name] += torch.stack([loss.double().sum().cpu() for loss in forecast(window).losses(window)])
    means = {name: (total / (len(windows) * data.length)).tolist() for name, total in totals.items()}
    return {name: Scores(*mean) for name, mean in means.items()}


@torch.no_grad()
def dream(model: MdnRnn, vae: GaussianAutoencoder, data: LatentSequences, config: MdnRnnConfig, device: torch.device) -> bytes:
    """A GIF of how a window of `data` goes on: left as recorded, right as dreamed given the recorded actions."""
    window, warmup = moved(data.batch(np.array([len(data) // 2])), device), config.length
    z_BLZ, action = window["z"], window["action"]
    _, state = model(z_BLZ[:, :warmup], action[:, :warmup])
    dreamed = [z_BLZ[:, warmup : warmup + 1]]
    for t in range(warmup, data.length):
        forecast, state = model(dreamed[-1], action[:, t : t + 1], state, config.temperature)
        dreamed.append(forecast.next_z.sample())
    panels = (window["next_z"][0, warmup - 1 :], torch.cat(dreamed, dim=1)[0])
    left, right = (to_frames(vae.decode_z(z_NZ, vae.typical_condition(len(z_NZ)))) for z_NZ in panels)
    gap = np.full_like(left[:, :, :PANEL_GAP], 255)
    return to_gif(np.concatenate([left, gap, right], axis=2))


def to_gif(frames_NHWC: np.ndarray, labels: tuple[str, str] = ("recorded", "dreamed")) -> bytes:
    """The bytes of a looping GIF of two panels, magnified. All frames share a palette, with its rare colours."""
    height, width = frames_NHWC.shape[1:3]
    strip = Image.fromarray(frames_NHWC.reshape(-1, width, 3)).quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
    parts = [strip.crop((0, top, width, top + height)) for top in range(0, strip.height, height)]
    first, *rest = (labelled(part.resize((PANEL_SCALE * width, PANEL_SCALE * height)), labels) for part in parts)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    return buffer.getvalue()


def labelled(panels: Image.Image, labels: tuple[str, str]) -> Image.Image:
    """Both panels below what they are, in the palette's own lightest and darkest colour."""
    palette = panels.getpalette() or []
    light = np.reshape(palette, (-1, 3)).sum(axis=1)
    picture = Image.new("P", (panels.width, panels.height + LABEL_HEIGHT), int(light.argmax()))
    picture.putpalette(palette)
    picture.paste(panels, (0, LABEL_HEIGHT))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"
    for name, share in zip(labels, (1 / 4, 3 / 4), strict=True):
        at = (share * picture.width, LABEL_HEIGHT / 2)
        draw.text(at, name, int(light.argmin()), ImageFont.load_default(LABEL_HEIGHT * 2 // 3), anchor="mm")
    return picture


def print_report(report: Report) -> None:
    """A table of all scores."""
    title = f"Forecasts of {report.heldout_transitions} held-out transitions, {report.heldout_terminations} of them ends"
    table = Table(title=title, title_justify="left")
    for heading in ("", "NLL of z, nats a step", "reward, MSE", "termination, log-loss"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, scores in report.scores.items():
        table.add_row(name, f"{scores.nll:.2f}", f"{scores.reward_mse:.3f}", f"{scores.termination_log_loss:.5f}")
    Console(highlight=False).print(table)


def saved(model: MdnRnn, vae_sha256: str) -> bytes:
    """The weights, with what the actions are and which VAE's latents they know."""
    about = {"action_space": model.actions.record, "vae_sha256": vae_sha256}
    weights = {name: values.contiguous() for name, values in model.state_dict().items()}
    return safetensors.torch.save(weights, {"about": json.dumps(about)})  # one entry: several come in random order


def load_mdn_rnn(folder: Path, vae: Path) -> MdnRnn:
    """What a run wrote to `folder`, on the CPU; raises ModelNotUsable, also if it knows another VAE's latents."""
    file = folder / WEIGHTS
    try:
        with safetensors.safe_open(file, "pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no dictionary)
            about = json.loads((opened.metadata() or {})["about"])
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise ModelNotUsable(f"cannot be read: {error}", where=file, remedy="run train_mdn_rnn.py") from None
    if about["vae_sha256"] != artifact.describe(vae).sha256:
        raise ModelNotUsable(f"was trained on latents of another VAE than {vae}", where=file)
    nothing = {"z": torch.zeros(2, 1, len(weights["z_mean"])), "reward": torch.zeros(2, 1), "terminated": torch.zeros(2, 1)}
    model = MdnRnn(nothing, ActionSpace(about["action_space"]))
    model.load_state_dict(weights)
    return model.eval()


def moved(window: Window, device: torch.device) -> Window:
    """All columns on a device; latents that are a map become a vector."""
    vectors = {name: window[name].flatten(start_dim=2) for name in ("z", "next_z") if name in window}
    return {name: column.to(device) for name, column in (window | vectors).items()}


def mean_and_std(values_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Over the windows and their transitions; what never varies gets a std above 0."""
    return values_BL.mean(dim=(0, 1)), values_BL.std(dim=(0, 1)).clamp_min(1e-6)


def log_odds(happened: torch.Tensor) -> torch.Tensor:
    """A scalar: the logit of how often it did, by Laplace's rule, which knows no never."""
    return torch.logit((happened.sum() + 1) / (happened.numel() + 2))


def disjoint(data: LatentSequences) -> np.ndarray:
    """Every L-th window: within an episode they are consecutive, and no transition comes twice."""
    return np.arange(0, len(data), data.length)


def as_vectors(action: torch.Tensor, actions: ActionSpace) -> torch.Tensor:
    """float (B, L, A): numbers as they are, choices one-hot over the action space."""
    if actions.kind != "discrete":
        return action.float()
    choices = action.reshape(*action.shape[:2], -1)
    values = [torch.arange(each.start, each.stop, device=action.device) for each in actions.choices]
    return torch.cat([choices[..., [i]] == value for i, value in enumerate(values)], dim=-1).float()


if __name__ == "__main__":
    run("train_mdn_rnn.py", MdnRnnConfig, train_and_dream, show=print_report)
