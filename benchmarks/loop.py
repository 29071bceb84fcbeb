"""How fast a controller drives on latents: environment, V, M and C together, beside each alone and beside a plain loop.

    python benchmarks/loop.py [--vae runs/quickstart/vae] [--rnn runs/quickstart/mdn_rnn] [--envs N] [--steps N] [--rounds N]

The loop is that of `examples/train_controller.py` on one core: many environments step at once, and V and M see their frames in
one batch. The plain loop steps Gymnasium's own CarRacing-v3, one environment at a time, with V as PyTorch computes it. Both
have the same weights and the same kind of controllers, those of the search's first generation. Times are CPU time of the
process: medians over rounds, in which all take turns. The first second of an episode, when the camera zooms, does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import gymnasium
import numpy as np
import torch
from _machine import describe_machine
from train_controller import FIRST_TRAINING_TRACK, STEP_SIZE, Driver, Slot
from train_mdn_rnn import State

from worldmodel_v import Encoder

ZOOM_STEPS = 50
PACKAGES = ("torch", "gymnasium", "pygame-ce", "numba", "numpy")


class Drive(NamedTuple):
    """What the environments did in some steps, for measuring the parts alone; T steps, N environments."""

    frames: list[np.ndarray]
    """T times what they showed: uint8 (N, H, W, 3)."""

    actions: list[np.ndarray]
    """T times what the controllers did: float32 (N, A)."""

    states: list[State]
    """M's state at each step."""


def started(driver: Driver, controllers_NP: np.ndarray) -> State:
    """All environments at the first step behind the zoom; M's state there."""
    for index, (slot, controller_P) in enumerate(zip(driver.slots, controllers_NP, strict=True)):
        slot.begin(index, controller_P, FIRST_TRAINING_TRACK + index)
    state = driver.no_state(len(driver.slots))
    for _ in range(ZOOM_STEPS):
        state = driver.step(driver.slots, state, 0)
    return state


def driven(driver: Driver, controllers_NP: np.ndarray, num_steps: int) -> tuple[Drive, float]:
    """Some steps of the whole loop, and the CPU seconds that they took, without those of recording them."""
    state, drive, seconds = started(driver, controllers_NP), Drive([], [], []), 0.0
    step_of = {slot: slot.step for slot in driver.slots}
    actions: list[np.ndarray] = []

    def kept(slot: Slot) -> Callable[[np.ndarray, int], None]:
        return lambda action_A, patience: (actions.append(action_A), step_of[slot](action_A, patience))[1]

    for slot in driver.slots:
        slot.step = kept(slot)  # type: ignore[method-assign]
    for _ in range(num_steps):
        drive.frames.append(np.stack([slot.frame for slot in driver.slots]))
        drive.states.append(state)
        start = time.process_time()
        state = driver.step(driver.slots, state, 0)
        seconds += time.process_time() - start
        drive.actions.append(np.stack(actions))
        actions.clear()
    for slot in driver.slots:
        del slot.step
    return drive, seconds


def environments(driver: Driver, controllers_NP: np.ndarray, drive: Drive) -> float:
    """CPU seconds of the environments alone, which get the same actions."""
    started(driver, controllers_NP)
    start = time.process_time()
    for action_NA in drive.actions:
        for slot, action_A in zip(driver.slots, action_NA, strict=True):
            slot.step(action_A, 0)
    return time.process_time() - start


def encoding(driver: Driver, drive: Drive) -> float:
    """CPU seconds of V alone, from the environments' frames."""
    start = time.process_time()
    for frames in drive.frames:
        driver.encoder(frames, preprocessed=False)
    return time.process_time() - start


@torch.inference_mode()
def remembering(driver: Driver, drive: Drive, z_NZ: np.ndarray) -> float:
    """CPU seconds of M alone."""
    start = time.process_time()
    for action_NA, state in zip(drive.actions, drive.states, strict=True):
        driver.rnn.remember(torch.from_numpy(z_NZ)[:, None], torch.from_numpy(action_NA)[:, None], state)
    return time.process_time() - start


def acting(driver: Driver, drive: Drive, z_NZ: np.ndarray) -> float:
    """CPU seconds of C alone."""
    start = time.process_time()
    for state in drive.states:
        driver.act(driver.slots, z_NZ, state)
    return time.process_time() - start


@torch.inference_mode()
def plain(driver: Driver, encoder: Encoder, env: gymnasium.Env, controller_P: np.ndarray, track: int, num_steps: int) -> float:
    """CPU seconds of the plain loop."""
    frame, _ = env.reset(seed=track)
    weights_AX, state = controller_P.reshape(driver.space.shape[0], -1), driver.no_state(1)
    for step in range(ZOOM_STEPS + num_steps):
        if step == ZOOM_STEPS:
            start = time.process_time()
        z_Z = encoder(frame, preprocessed=False).mu
        action_A = weights_AX @ np.concatenate([z_Z, state[0][0, 0].numpy(), [1]])
        action_A = np.clip(action_A, driver.space.low, driver.space.high).astype(np.float32)
        frame, *_ = env.step(action_A)
        _, state = driver.rnn.remember(torch.from_numpy(z_Z)[None, None], torch.from_numpy(action_A)[None, None], state)
    return time.process_time() - start


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of CPU time a step."""
    driver, encoder = Driver(options.vae, options.rnn, options.envs), Encoder.load(options.vae)
    theirs, rng = gymnasium.make("CarRacing-v3"), np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(options.rounds + 1):  # one to warm up
        controllers_NP = STEP_SIZE * rng.standard_normal((options.envs, driver.num_parameters))
        drive, together = driven(driver, controllers_NP, options.steps)
        z_NZ = driver.encoder(drive.frames[0], preprocessed=False).mu
        seconds = {
            "environment": environments(driver, controllers_NP, drive),
            "V: resize and encode": encoding(driver, drive),
            "M: the LSTM": remembering(driver, drive, z_NZ),
            "C: the controllers": acting(driver, drive, z_NZ),
            "together": together,
        }
        for name, value in seconds.items():
            found[name].append(1e6 * value / options.steps / options.envs)
        alone = plain(driver, encoder, theirs, controllers_NP[0], FIRST_TRAINING_TRACK + number, options.steps)
        found["plain loop"].append(1e6 * alone / options.steps)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=Path("runs/quickstart/vae"))
    parser.add_argument("--rnn", type=Path, default=Path("runs/quickstart/mdn_rnn"))
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options)
    plain_us, together = found.pop("plain loop"), found.pop("together")
    parts = sum(found.values())
    print(describe_machine(*PACKAGES))
    print(f"{options.vae}, {options.envs} environments at once, one core\n")
    print("| | µs a step | steps/s and core |")
    print("|---|---|---|")
    for name, value in [*found.items(), ("sum of the parts", parts), ("**together**", together), ("plain loop", plain_us)]:
        print(f"| {name} | {value:,.0f} | {1e6 / value:,.0f} |")
    print(f"\nTogether is {plain_us / together:.1f} times the plain loop, and {parts / together:.2f} of the sum of its parts.")


if __name__ == "__main__":
    main()
