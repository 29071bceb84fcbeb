"""A controller that learns from a teacher: the C of a world model in minutes.

    python examples/teach_controller.py --vae runs/quickstart/vae --rnn runs/quickstart/mdn_rnn --out runs/quickstart/controller

Controller, tracks, choice and score are those of `train_controller.py`; only the way to the weights differs. The teacher is a
policy that knows more than a frame shows: `driver` reads from the environment where CarRacing's road goes. In the first lesson
it drives; in all others the controller does, and at each step the teacher says what it would do there. After each lesson ridge
regression on the steps of all lessons gives the next controller (DAgger: Ross et al. 2011, arXiv:1011.0686, algorithm 3.1 with
β = 1, 0, 0, …). So the controller learns what to do where it comes itself, and not only where a better driver comes.

The same command continues a run that was stopped, and a larger --lessons goes on with one that is done.

Legend: N environments, X what a controller sees, A action size, P parameters.
"""

import json
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from train_controller import (
    CHOICE_TRACKS,
    FIRST_TRAINING_TRACK,
    LAST_TRACK,
    Chosen,
    Drive,
    DriveConfig,
    Driven,
    Driver,
    Job,
    Report,
    Slot,
    as_npz,
    drivers,
    on_all,
    require_multiple,
    require_same_settings,
    tested,
)

from worldmodel_v.cli.main import run
from worldmodel_v.errors import OutputNotUsable
from worldmodel_v.policies import next_action, policy_maker
from worldmodel_v.progress import Progress
from worldmodel_v.storage.publish import publish

RIDGE = 1e-4
"""Of the regression, as a share of each input's mean square."""


@dataclass(frozen=True, kw_only=True)
class TeachConfig(DriveConfig):
    """Teach a linear controller on the latents of a VAE what a policy does, and test it on tracks that it has not seen."""

    teacher: str = "driver(speed=70, curve_speed=40)"
    """A policy, written as for wm-collect."""

    lessons: Annotated[int, Ge(1)] = 32
    """Lessons, a multiple of --choose-every; a larger number goes on with them."""

    tracks: Annotated[int, Ge(1)] = 16
    """Tracks of a lesson."""

    choose_every: Annotated[int, Ge(1)] = 8
    """Lessons after which the controller drives the tracks for choosing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_multiple("lessons", self.lessons, self.choose_every)


class Pupil(Driver):
    """A driver that notes what the teacher would do. A controller of zeros lets the teacher drive."""

    def __init__(self, vae: Path, rnn: Path | None, num_envs: int, teacher: str) -> None:
        """Raises ModelNotUsable, EnvironmentNotUsable or PolicyNotUsable."""
        super().__init__(vae, rnn, num_envs)
        make_teacher = policy_maker(teacher)
        self.teachers = {slot: make_teacher(slot.env.gym) for slot in self.slots}

    def __call__(self, job: Job) -> Driven:
        """`lessons` of what it returns are sums over all steps, of the products of what was seen with itself and with what the
        teacher would do: float64 (X, X + A)."""
        self.lessons: np.ndarray | int = 0
        return super().__call__(job)._replace(lessons=self.lessons)

    def begin(self, slot: Slot, index: int, controller_P: np.ndarray, track: int) -> None:
        super().begin(slot, index, controller_P, track)
        slot.frame = slot.env.begin(self.teachers[slot], np.random.default_rng(track), slot.frame, "the teacher")

    def choose(self, busy: list[Slot], seen_NX: np.ndarray) -> np.ndarray:
        wanted = [next_action(self.teachers[slot], slot.frame, slot.env.seen[0]) for slot in busy]
        wanted_NA = np.stack([slot.env.record_action(action) for slot, action in zip(busy, wanted, strict=True)])
        seen_NX = seen_NX.astype(np.float64)
        self.lessons = self.lessons + seen_NX.T @ np.concatenate([seen_NX, wanted_NA], axis=1)
        teacher_drives_N1 = np.array([[not slot.controller_P.any()] for slot in busy])
        return np.where(teacher_drives_N1, wanted_NA, super().choose(busy, seen_NX))


class Course:
    """The lessons so far, in one file: a kill loses one at most."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Raises OutputNotUsable if the course there cannot be read or has other settings."""
        self.path = path
        nothing: dict[str, Any] = {"settings": settings, "lessons": [], "sums": 0}
        try:
            known = json.loads(path.read_bytes()) if path.exists() else nothing
            self.settings, self.lessons, self.sums = known["settings"], known["lessons"], np.array(known["sums"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputNotUsable(f"cannot be read: {error}", where=path, remedy="give another --out") from None
        require_same_settings(path, self.settings, settings)

    def add(self, sums: np.ndarray, **lesson: Any) -> None:
        self.sums = self.sums + sums
        self.lessons.append(lesson | {"controller": taught(self.sums).tolist()})

    def save(self) -> None:
        content = {"settings": self.settings, "lessons": self.lessons, "sums": self.sums.tolist()}
        publish(self.path, json.dumps(content).encode())


def taught(sums: np.ndarray) -> np.ndarray:
    """The controller (P,) of the least squares that these sums of a `Pupil` are of."""
    num_seen = len(sums)
    seen_XX, wanted_XA = np.split(sums / sums[num_seen - 1, num_seen - 1], [num_seen], axis=1)
    scale_X = np.sqrt(np.diag(seen_XX)).clip(min=1e-12)
    weights_XA = np.linalg.solve(seen_XX / np.outer(scale_X, scale_X) + RIDGE * np.eye(num_seen), wanted_XA / scale_X[:, None])
    return (weights_XA / scale_X[:, None]).T.ravel()


def teach(config: TeachConfig, progress: Progress) -> Report:
    """The whole flow: lessons, choose, test. Raises WorldModelError."""
    settings = config.settings("teacher", "tracks", "choose_every")
    size = Pupil(config.vae, config.rnn, 1, config.teacher).num_parameters
    config.out.mkdir(parents=True, exist_ok=True)
    course = Course(config.out / "lessons.json", settings)
    with drivers(config, progress, Pupil, config.teacher) as drive:
        best = learn(config, size, course, drive, progress)
        frames = sum(lesson["frames"] for lesson in course.lessons[: config.lessons])
        return tested(config, best, config.lessons, frames, drive, progress)


def learn(config: TeachConfig, size: int, course: Course, drive: Drive, progress: Progress) -> Chosen:
    """The best choice. Lessons that `course` knows are not given again."""
    best = Chosen(-math.inf, 0, np.zeros(size))
    with closing(progress.task("teach", config.lessons, "lessons", done=min(len(course.lessons), config.lessons))) as task:
        for number in range(1, config.lessons + 1):
            if is_new := number > len(course.lessons):
                before = np.array(course.lessons[-1]["controller"]) if course.lessons else np.zeros(size)
                tracks = np.random.default_rng((config.seed, number)).integers(FIRST_TRAINING_TRACK, LAST_TRACK, config.tracks)
                driven = drive(on_all(tracks.tolist(), before)._replace(patience=config.patience))
                course.add(driven.lessons, mean=float(driven.returns.mean()), frames=driven.frames)
            lesson = course.lessons[number - 1]
            if number % config.choose_every == 0:
                controller_P = np.array(lesson["controller"])
                if is_new:
                    driven = drive(on_all(CHOICE_TRACKS[: config.choice_tracks], controller_P))
                    lesson |= {"choice": float(driven.returns.mean()), "frames": lesson["frames"] + driven.frames}
                best = best.or_better(Chosen(lesson["choice"], number, controller_P))
                publish(config.out / "controller.npz", as_npz(best))
            if is_new:
                course.save()
                chosen = {"chosen": best.mean} if best.generation else {}
                task.advance(1, mean=lesson["mean"], **chosen)
    return best


if __name__ == "__main__":
    run("teach_controller.py", TeachConfig, teach)
