"""A GIF of what a controller of `train_controller.py` drives, beside what V and M dream of it.

    cd runs/quickstart
    python ../../examples/watch_controller.py --vae vae --rnn mdn_rnn --controller controller

Both sides begin alike: for --start steps the controller drives in the environment. From there the left one goes on, and the
right one dreams: M draws the next latent, C acts on it, and V decodes it.

Legend: N = 1 environment, Z latent, A action, P parameters.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the cores to others

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from train_controller import Driver, Slot
from train_mdn_rnn import PANEL_GAP, State, to_gif

from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder, load_vae
from worldmodel_v.cli.main import run
from worldmodel_v.envs import frame_preprocessor
from worldmodel_v.errors import ConfigError, ModelNotUsable
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.progress import Progress
from worldmodel_v.settings import require_settings
from worldmodel_v.storage.publish import publish


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Record how a controller drives and how V and M dream of it, as drive.gif beside the controller."""

    vae: Path
    """The VAE that the controller was trained with."""

    rnn: Path
    """The MDN-RNN that it was trained with."""

    controller: Path
    """The directory that train_controller.py wrote."""

    track: Annotated[int, Ge(0)] = 0
    """The track: the seed of the environment's reset."""

    start: Annotated[int, Ge(0)] = 60
    """Steps before the dream begins; in CarRacing the camera zooms for 50."""

    steps: Annotated[int, Ge(1)] = 200
    """Steps to record, fewer if the episode ends."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Of the dream: above 1 it is more random, below 1 less."""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds the dream."""

    def __post_init__(self) -> None:
        require_settings(self)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was recorded."""

    gif: Path
    steps: int
    reward: float
    """The rewards of the recorded steps."""


def watch(config: WatchConfig, progress: Progress) -> Report:
    """Drive, dream, and write drive.gif. Raises WorldModelError."""
    vae, driver = load_vae(config.vae), Driver(config.vae, config.rnn, 1)
    (slot,) = driver.slots
    slot.begin(0, read_controller(config.controller / "controller.npz", driver.num_parameters), config.track)
    state = driver.no_state(1)
    for _ in range(config.start):
        state = driver.step([slot], state, 0)
        if slot.has_ended:
            raise ConfigError(field="start", expected="fewer steps than the episode has", got=config.start)
    reward_before = slot.total
    with torch.inference_mode():
        torch.manual_seed(config.seed)
        dreamed = dream(driver, slot, state, vae.model, config)
    assert vae.trained_on is not None  # the driver has asked
    driven = drive(driver, slot, state, vae.trained_on.preprocessing, config.steps)
    gap = np.full((len(driven), driven.shape[1], PANEL_GAP, 3), 255, np.uint8)
    panels = np.concatenate([driven, gap, dreamed[: len(driven)]], axis=2)
    path = config.controller / "drive.gif"
    publish(path, to_gif(panels, ("driven", "dreamed")))
    progress.event("finished", f"the drive and the dream are in {path}", out=path)
    return Report(gif=path, steps=len(driven), reward=slot.total - reward_before)


def drive(driver: Driver, slot: Slot, state: State, preprocessing: Preprocessing, num_steps: int) -> np.ndarray:
    """The frames that V sees while the controller drives on, uint8 (T, H, W, 3)."""
    preprocess = frame_preprocessor(slot.frame.shape, preprocessing)
    frames: list[np.ndarray] = []
    while len(frames) < num_steps and not slot.has_ended:
        frames.append(preprocess(slot.frame))
        state = driver.step([slot], state, 0)
    return np.stack(frames)


def dream(driver: Driver, slot: Slot, state: State, vae: GaussianAutoencoder, config: WatchConfig) -> np.ndarray:
    """As many frames that nobody drove, uint8 (T, H, W, 3); the first is V's picture of the last one seen."""
    z_NZ = torch.from_numpy(driver.look([slot.frame]))
    assert driver.rnn is not None
    latents = []
    for _ in range(config.steps):
        latents.append(z_NZ)
        action_NA = torch.from_numpy(driver.act([slot], z_NZ.numpy(), state))
        forecast, state = driver.rnn(z_NZ[:, None], action_NA[:, None], state, config.temperature)
        z_NZ = forecast.next_z.sample()[:, 0]
    return to_frames(vae.decode_z(torch.cat(latents), vae.typical_condition(config.steps)))


def read_controller(file: Path, size: int) -> np.ndarray:
    """(P,) float64; raises ModelNotUsable if it is not there or belongs to another V or M."""
    try:
        with np.load(file) as opened:
            controller_P = opened["controller"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotUsable(f"cannot be read: {error}", where=file, remedy="run train_controller.py") from None
    if controller_P.shape != (size,):
        raise ModelNotUsable("is for another VAE or MDN-RNN", where=file, expected=f"{size} parameters", got=controller_P.shape)
    return controller_P


if __name__ == "__main__":
    run("watch_controller.py", WatchConfig, watch)
