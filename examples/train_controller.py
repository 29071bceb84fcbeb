"""A car that drives on the latents: the C of a world model, in one file.

    python examples/train_controller.py --vae runs/quickstart/vae --rnn runs/quickstart/mdn_rnn --out runs/quickstart/evolved

The controller is linear, as the paper's: a_t = W [z_t, h_t] + b, cut to the action space's bounds. z_t is the mean that the
VAE's encoder gives for the frame (of tokens, the numbers that they are decoded from), h_t the hidden state of the MDN-RNN of
`train_mdn_rnn.py` before it sees the frame; without --rnn it has z_t alone. CMA-ES finds W and b (Ha & Schmidhuber 2018,
arXiv:1803.10122; Hansen 2016, arXiv:1604.00772; the library is `cma`). Each worker steps many environments at once, so that V
and M see them in one batch. `teach_controller.py` finds W and b in minutes where there is a policy to learn from.

No track serves two purposes. The tracks of a generation are drawn anew, from seed 1000 on; every few generations the search's
mean drives tracks 100 to 199, and the best of these means is kept; at the end it drives tracks 0 to 99 once, and that is the
score: mean, standard error, and each return in `scores.json`.

The same command continues a run that was stopped, and a larger --generations goes on with one that is done.

Legend: N controllers or environments, X what a controller sees, A action size, P parameters.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the cores to others

import hashlib
import io
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium
import numpy as np
import torch
import train_mdn_rnn
from annotated_types import Ge, Gt, Le
from train_mdn_rnn import WEIGHTS, State, load_mdn_rnn, moved

from worldmodel_v import Encoder, open_dataset
from worldmodel_v.autoencoders import Autoencoder, artifact
from worldmodel_v.autoencoders.tokens import Tokenizer
from worldmodel_v.cli.main import run
from worldmodel_v.data import LatentSequences
from worldmodel_v.envs import make_image_env
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable, ModelNotUsable, OutputNotUsable
from worldmodel_v.execution import WorkerSettings
from worldmodel_v.execution.connection import cluster
from worldmodel_v.execution.worker import WORKER_ENVIRONMENT
from worldmodel_v.inspection import require_binding
from worldmodel_v.progress import Progress
from worldmodel_v.settings import require_settings
from worldmodel_v.spec import differences
from worldmodel_v.storage.publish import publish
from worldmodel_v.surface import option

TEST_TRACKS, CHOICE_TRACKS = range(100), range(100, 200)
FIRST_TRAINING_TRACK, LAST_TRACK = 1000, 2**31 - 1
STEP_SIZE = 0.1
"""CMA-ES's standard deviation at the start."""
WARM_UP = 16
"""Recorded steps that M sees before a dream."""


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """What drives, where and how: of each way to find a controller."""

    vae: Path
    """The VAE whose latents it sees; it drives in the environment of its frames, with that one's default arguments."""

    out: Path
    """Where controller.npz, scores.json and what a later run goes on from are written."""

    rnn: Path | None = None
    """The MDN-RNN that train_mdn_rnn.py made; without it the controller sees z alone."""

    choice_tracks: Annotated[int, Ge(1), Le(100)] = 32
    """How many tracks there are for choosing."""

    test_tracks: Annotated[int, Ge(2), Le(100)] = 100
    """How many tracks the final test has."""

    patience: Annotated[int, Ge(0)] = 100
    """While it learns, an episode ends after so many steps without a positive reward; 0: never."""

    workers: Annotated[int, Ge(0)] = 2
    """Ray workers, one core each; 0: all in this process."""

    address: str | None = None
    """The Ray cluster of the workers: auto, HOST:PORT or ray://HOST:PORT; else RAY_ADDRESS, else one on this machine."""

    envs: Annotated[int, Ge(1)] = 64
    """Environments that a worker steps at once, so that V and M see as many frames in a batch."""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds what it learns on."""

    def __post_init__(self) -> None:
        require_settings(self)

    def settings(self, *names: str) -> dict[str, Any]:
        """What the course of a run depends on: V, M, and these fields; raises ModelNotUsable."""
        seen = {"vae": artifact.describe(self.vae).sha256, "rnn": self.rnn and sha256_of(self.rnn / WEIGHTS)}
        return seen | {name: getattr(self, name) for name in ("choice_tracks", "patience", "seed", *names)}


def require_multiple(field: str, number: int, choose_every: int) -> None:
    """Raise ConfigError unless the last generation, or lesson, is one that is chosen from."""
    if number % choose_every:
        raise ConfigError(field=field, expected=f"a multiple of {choose_every} ({option('choose_every')})", got=number)


@dataclass(frozen=True, kw_only=True)
class ControllerConfig(DriveConfig):
    """Train a linear controller by CMA-ES on the latents of a VAE, and test it on tracks that it has not seen."""

    generations: Annotated[int, Ge(1)] = 100
    """Generations of the search, a multiple of --choose-every; a larger number goes on with it."""

    population: Annotated[int, Ge(4)] = 32
    """Controllers in a generation."""

    tracks: Annotated[int, Ge(1)] = 4
    """Tracks that each controller of a generation drives; they are the same for all of it."""

    choose_every: Annotated[int, Ge(1)] = 10
    """Generations after which the search's mean drives the tracks for choosing."""

    dream: Path | None = None
    """Latents of wm-encode: the search goes on in dreams that begin in them, and only choice and score in the environment."""

    dream_steps: Annotated[int, Ge(1)] = 300
    """Steps of a dream."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Of the dreams: above 1 they are more random, below 1 less."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dream and not self.rnn:
            raise ConfigError(field="dream", expected="nothing, or --rnn as well, which dreams", got=self.dream)
        require_multiple("generations", self.generations, self.choose_every)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `scores.json` holds: the returns of the chosen controller on the test tracks."""

    mean: float
    standard_error: float
    returns: list[float]
    generation: int
    """The generation that the controller comes from; or the lesson."""

    choice_mean: float
    """Its mean return on the tracks for choosing, where it was the best."""

    generations: int
    frames: int
    """Steps of the environment while it learned, those for choosing included."""


class Chosen(NamedTuple):
    """A controller that drove the tracks for choosing."""

    mean: float
    generation: int
    controller: np.ndarray
    """(P,)"""

    def or_better(self, other: "Chosen") -> "Chosen":
        """The other only if it drove better."""
        return other if other.mean > self.mean else self


class Job(NamedTuple):
    """Controllers (N, P), and the track that each drives."""

    controllers: np.ndarray
    tracks: list[int]
    patience: int = 0


class Driven(NamedTuple):
    """What came of a job."""

    returns: np.ndarray
    """Of each controller on its track, float64 (N,)."""

    frames: int
    """Steps in all."""

    lessons: Any = 0
    """What a pupil of `teach_controller.py` learned from; it can be added up."""


Drive = Callable[[Job], Driven]


class Slot:
    """One environment, and the episode that it is in."""

    def __init__(self, env_id: str) -> None:
        self.env = make_image_env(env_id, {})

    def begin(self, index: int, controller_P: np.ndarray, track: int) -> None:
        """Start the episode of the job's controller `index`."""
        self.index, self.controller_P, self.total, self.waited, self.has_ended = index, controller_P, 0.0, 0, False
        self.frame = self.env.reset(track)

    def step(self, action_A: np.ndarray, patience: int) -> None:
        self.frame, reward, terminated, truncated = self.env.step(action_A)
        self.total += reward
        self.waited = 0 if reward > 0 else self.waited + 1
        self.has_ended = terminated or truncated or 0 < patience <= self.waited


class Driver:
    """V, M and many environments in one process."""

    def __init__(self, vae: Path, rnn: Path | None, num_envs: int) -> None:
        """Raises ModelNotUsable or EnvironmentNotUsable."""
        torch.set_num_threads(1)
        trained = artifact.load(vae)
        if trained.trained_on is None:
            raise ModelNotUsable("does not say which environment its frames came from", where=vae)
        self.vae, self.encoder = trained.model, Encoder(trained, torch.device("cpu"), str(vae), for_batches=True)
        self.rnn = load_mdn_rnn(rnn, vae) if rnn else None
        env_id = trained.trained_on.env
        self.slots = [Slot(env_id) for _ in range(num_envs)]
        space = self.slots[0].env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise EnvironmentNotUsable("a linear controller needs a vector of actions", where=env_id, got=space)
        self.space = space

    @property
    def num_parameters(self) -> int:
        """P: the weights and the bias of each action."""
        no_latents = {name: np.zeros((1, *shape), np.float32) for name, shape in self.encoder.latent_shapes.items()}
        num_seen = as_numbers(self.vae, no_latents).shape[1] + (self.rnn.lstm.hidden_size if self.rnn else 0)
        return self.space.shape[0] * (num_seen + 1)

    def look(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """z of the environments' frames, float32 (N, Z)."""
        return as_numbers(self.vae, self.encoder(np.stack(frames), preprocessed=False).columns)

    def __call__(self, job: Job) -> Driven:
        """Drive all, in as many environments as there are; one that is done takes the next controller."""
        returns_N, num_steps = np.zeros(len(job.tracks)), 0
        waiting = list(enumerate(zip(job.controllers, job.tracks, strict=True)))
        busy: list[Slot] = []
        idle, state = list(self.slots), self.no_state(0)
        while waiting or busy:
            while idle and waiting:
                index, (controller_P, track) = waiting.pop(0)
                busy.append(idle.pop())
                self.begin(busy[-1], index, controller_P, track)
                state = joined(state, self.no_state(1))
            state, num_steps = self.step(busy, state, job.patience), num_steps + len(busy)
            for slot in (slot for slot in busy if slot.has_ended):
                returns_N[slot.index] = slot.total
                idle.append(slot)
            going = [i for i, slot in enumerate(busy) if not slot.has_ended]
            busy, state = [busy[i] for i in going], (state[0][:, going], state[1][:, going])
        return Driven(returns_N, num_steps)

    def begin(self, slot: Slot, index: int, controller_P: np.ndarray, track: int) -> None:
        """Start the episode of the job's controller `index`."""
        slot.begin(index, controller_P, track)

    @torch.inference_mode()
    def step(self, busy: list[Slot], state: State, patience: int) -> State:
        """One step of all: look, act, and let M know."""
        z_NZ = self.look([slot.frame for slot in busy])
        action_NA = self.act(busy, z_NZ, state)
        for slot, action_A in zip(busy, action_NA, strict=True):
            slot.step(action_A, patience)
        if self.rnn is None:
            return state
        return self.rnn.remember(torch.from_numpy(z_NZ)[:, None], torch.from_numpy(action_NA)[:, None], state)[1]

    def act(self, busy: list[Slot], z_NZ: np.ndarray, state: State) -> np.ndarray:
        """What all do: float32 (N, A), inside the bounds of the action space."""
        seen_NX = np.concatenate([z_NZ, state[0][0].numpy(), np.ones((len(busy), 1), np.float32)], axis=1)
        return np.clip(self.choose(busy, seen_NX), self.space.low, self.space.high).astype(np.float32)

    def choose(self, busy: list[Slot], seen_NX: np.ndarray) -> np.ndarray:
        """What each controller says, (N, A)."""
        return said_by(np.stack([slot.controller_P for slot in busy]), seen_NX)

    def no_state(self, num: int) -> State:
        """M's state before an episode; without M it has no values."""
        shape = (1, num, self.rnn.lstm.hidden_size if self.rnn else 0)
        return torch.zeros(shape), torch.zeros(shape)


def as_numbers(vae: Autoencoder, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """z of N frames, float32 (N, Z): the mean of their latents, or the numbers that the decoder gets for their tokens.

    Raises ModelNotUsable if there is neither.
    """
    if "mu" in latents:
        numbers = latents["mu"]
    elif isinstance(vae, Tokenizer):
        numbers = vae.codes_of(torch.from_numpy(latents["tokens"].astype(np.int64))).numpy()
    else:
        raise ModelNotUsable("a linear controller sees mu or tokens", got=", ".join(latents))
    return numbers.reshape(len(numbers), -1)


def said_by(controllers_NP: np.ndarray, seen_NX: np.ndarray) -> np.ndarray:
    """(N, A)"""
    return np.einsum("nax,nx->na", controllers_NP.reshape(len(seen_NX), -1, seen_NX.shape[1]), seen_NX)


class Dreamer:
    """M in the place of the environment. A dream begins in a recorded episode, of which M has seen some steps. From there on M
    draws each latent, and its forecasts of rewards count, as far as by its forecasts the episode has not ended."""

    def __init__(self, driver: Driver, config: ControllerConfig) -> None:
        """Raises DatasetNotUsable, or ModelNotUsable if these latents are another VAE's."""
        assert config.dream is not None
        assert driver.rnn is not None
        require_binding(config.dream, data=None, vae=config.vae)
        self.rnn, self.space, self.config = driver.rnn, driver.space, config
        self.source = open_dataset(config.dream).spec_hash
        self.beginnings = LatentSequences(config.dream, length=WARM_UP, split="train", sample=False)

    @torch.inference_mode()
    def __call__(self, job: Job) -> Driven:
        """Equal tracks begin in the same place. No frame of the environment is used."""
        window = moved(self.beginnings.batch(np.array(job.tracks) % len(self.beginnings)), torch.device("cpu"))
        torch.manual_seed(job.tracks[0])
        state = self.rnn.remember(window["z"], window["action"])[1]
        z_NZ, returns_N, going_N = window["next_z"][:, -1], torch.zeros(len(job.tracks)), torch.ones(len(job.tracks))
        for _ in range(self.config.dream_steps):
            seen_NX = np.concatenate([z_NZ, state[0][0], torch.ones(len(z_NZ), 1)], axis=1)
            action_NA = np.clip(said_by(job.controllers, seen_NX), self.space.low, self.space.high).astype(np.float32)
            forecast, state = self.rnn(z_NZ[:, None], torch.from_numpy(action_NA)[:, None], state, self.config.temperature)
            returns_N += going_N * forecast.reward[:, 0]
            going_N *= 1 - forecast.termination[:, 0].sigmoid()
            z_NZ = forecast.next_z.sample()[:, 0]
        return Driven(returns_N.double().numpy(), 0)


def require_same_settings(path: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises OutputNotUsable if the run at `path` has other settings."""
    if found != settings:
        raise OutputNotUsable("; ".join(differences(found, settings)), where=path, remedy="give another --out")


class History:
    """What each generation came to, a line of JSON each: a run that goes on does not drive it again."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Raises OutputNotUsable if the run there has other settings."""
        self.path = path
        whole = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [json.loads(line) for line in whole if line.endswith("\n")]  # the last may be torn
        self.lines = lines or [settings]
        require_same_settings(path, self.lines[0], settings)

    def __getitem__(self, generation: int) -> dict[str, Any] | None:
        return self.lines[generation] if generation < len(self.lines) else None

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        publish(self.path, "".join(json.dumps(each) + "\n" for each in self.lines).encode())


def train_controller(config: ControllerConfig, progress: Progress) -> Report:
    """The whole flow: search, choose, test. Raises WorldModelError."""
    settings = config.settings("population", "tracks", "choose_every")
    driver = Driver(config.vae, config.rnn, 1)
    dream = None
    if config.dream:
        dream = Dreamer(driver, config)
        settings |= {"dream": dream.source, "dream_steps": config.dream_steps, "temperature": config.temperature}
    config.out.mkdir(parents=True, exist_ok=True)
    history = History(config.out / "history.jsonl", settings)
    with drivers(config, progress) as drive:
        best = search(config, driver.num_parameters, history, drive, dream or drive, progress)
        frames = sum(line["frames"] for line in history.lines[1 : config.generations + 1])
        return tested(config, best, config.generations, frames, drive, progress)


def tested(config: DriveConfig, best: Chosen, generations: int, frames: int, drive: Drive, progress: Progress) -> Report:
    """What the chosen controller drives on the tracks of the test, in scores.json too."""
    progress.say(f"the chosen controller drives {config.test_tracks} tracks that are new to it; the mean is its score")
    returns = drive(on_all(TEST_TRACKS[: config.test_tracks], best.controller)).returns
    report = Report(
        mean=float(returns.mean()),
        standard_error=float(returns.std(ddof=1) / math.sqrt(len(returns))),
        returns=returns.tolist(),
        generation=best.generation,
        choice_mean=best.mean,
        generations=generations,
        frames=frames,
    )
    publish(config.out / "scores.json", (json.dumps(asdict(report), indent=2) + "\n").encode())
    return report


def on_all(tracks: Sequence[int], controller_P: np.ndarray) -> Job:
    """One controller on many tracks, to their ends."""
    return Job(np.stack([controller_P] * len(tracks)), list(tracks))


def search(config: ControllerConfig, size: int, history: History, drive: Drive, learn: Drive, progress: Progress) -> Chosen:
    """The best choice by `drive`, of a search by what `learn` gives.

    CMA-ES is told of the generations that `history` knows, which takes no driving.
    """
    with warnings.catch_warnings(action="ignore"):  # about matplotlib, which nothing here needs
        import cma

    rng = np.random.default_rng(config.seed)
    options = {
        "popsize": config.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": math.nan,
        "verbose": -9,
    }
    es = cma.CMAEvolutionStrategy(np.zeros(size), STEP_SIZE, options)
    best = Chosen(-math.inf, 0, es.mean)
    task = progress.task("search", config.generations, "generations", done=min(len(history.lines) - 1, config.generations))
    with closing(task):
        for generation in range(1, config.generations + 1):
            tracks = rng.integers(FIRST_TRAINING_TRACK, LAST_TRACK, config.tracks).tolist()
            candidates_NP = np.stack(es.ask())
            line = history[generation]
            if is_new := line is None:
                job = Job(candidates_NP.repeat(config.tracks, axis=0), tracks * config.population, config.patience)
                driven = learn(job)
                line = {"means": driven.returns.reshape(config.population, -1).mean(axis=1).tolist(), "frames": driven.frames}
            es.tell([*candidates_NP], [-mean for mean in line["means"]])
            if generation % config.choose_every == 0:
                if is_new:
                    driven = drive(on_all(CHOICE_TRACKS[: config.choice_tracks], es.mean))
                    line |= {"choice": float(driven.returns.mean()), "frames": line["frames"] + driven.frames}
                best = best.or_better(Chosen(line["choice"], generation, es.mean.copy()))
                publish(config.out / "controller.npz", as_npz(best))
            if is_new:
                history.add(line)
                chosen = {"chosen": best.mean} if best.generation else {}
                task.advance(1, mean=float(np.mean(line["means"])), best=max(line["means"]), **chosen)
    return best


@contextmanager
def drivers(config: DriveConfig, progress: Progress, kind: type[Driver] = Driver, *settings: Any) -> Iterator[Drive]:
    """What drives a job: this process, or the workers, each of which takes a part of it."""
    if not config.workers:
        yield kind(config.vae, config.rnn, config.envs, *settings)
        return
    import ray
    from ray import cloudpickle
    from ray.util import ActorPool

    for example in {train_mdn_rnn, sys.modules[Driver.__module__], sys.modules[kind.__module__]}:
        cloudpickle.register_pickle_by_value(example)
    with cluster(WorkerSettings(num_workers=config.workers, address=config.address), progress):
        worker = ray.remote(kind).options(num_cpus=1, runtime_env={"env_vars": WORKER_ENVIRONMENT})
        paths = config.vae.absolute(), config.rnn and config.rnn.absolute()
        pool = ActorPool([worker.remote(*paths, config.envs, *settings) for _ in range(config.workers)])

        def drive(job: Job) -> Driven:
            parts = [
                job._replace(controllers=job.controllers[i :: config.workers], tracks=job.tracks[i :: config.workers])
                for i in range(config.workers)
            ]
            return together(list(pool.map(lambda driver, part: driver.__call__.remote(part), parts)))

        yield drive


def together(driven: list[Driven]) -> Driven:
    """Of a job what its parts came to, which took every k-th controller."""
    returns_N = np.zeros(sum(len(part.returns) for part in driven))
    for i, part in enumerate(driven):
        returns_N[i :: len(driven)] = part.returns
    return Driven(returns_N, sum(part.frames for part in driven), sum(part.lessons for part in driven))


def sha256_of(weights: Path) -> str:
    """Of what train_mdn_rnn.py wrote; raises ModelNotUsable."""
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelNotUsable(f"cannot be read: {error.strerror}", where=weights, remedy="run train_mdn_rnn.py") from None


def joined(state: State, other: State) -> State:
    """The states of two batches as one."""
    return torch.cat([state[0], other[0]], dim=1), torch.cat([state[1], other[1]], dim=1)


def as_npz(chosen: Chosen) -> bytes:
    """The bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **chosen._asdict())
    return buffer.getvalue()


if __name__ == "__main__":
    run("train_controller.py", ControllerConfig, train_controller)
