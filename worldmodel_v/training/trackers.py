"""Trackers of experiments: where a training's numbers and pictures are shown besides `metrics.jsonl`, as `--track` says.

Each tracker is a class with three methods, in `TRACKERS`. They may need a network, so they run in a thread of their own, which
the training never waits for: it queues what it has, and only at its end gives the thread some seconds. If a tracker fails, or
cannot keep up, this is told once, and the training goes on without it.

The tracker's own id of the run is in `tracker.json`, so that a continued training continues the same run there. It is not part
of the training's settings: `--track` changes no weights.
"""

import importlib.util
import io
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from worldmodel_v.errors import PackageMissing, one_line
from worldmodel_v.storage.directory import read_object
from worldmodel_v.storage.publish import publish
from worldmodel_v.surface import option

TrackerName = Literal["tensorboard", "wandb", "mlflow"]

TRACKER_NAME = "tracker.json"
TRACKER_FOLDER = "wandb"
"""What Weights & Biases writes in a training's directory."""

PROJECT = "worldmodel_v"
"""The project or experiment, if the tracker's own environment variables name none."""

MOST_QUEUED = 10_000
SECONDS_AT_THE_END = 30.0

Values = Mapping[str, float | list[float]]
Tell = Callable[[str], None]


class Tracker(Protocol):
    """A run in a tracker. All methods may raise anything, and may take long."""

    run_id: str
    """The tracker's own name of the run, by which it is continued."""

    def add(self, step: int, values: Values) -> None:
        """Numbers, and lists of numbers for histograms, by their names: train/loss, held-out/psnr_db, …"""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """A picture: reconstructions, or prior."""

    def close(self) -> None:
        """End the run."""


class WeightsAndBiases:
    """The package wandb, with its environment variables (WANDB_PROJECT, WANDB_MODE, …)."""

    def __init__(self, out: Path, settings: Mapping[str, Any], run_id: str | None) -> None:
        import wandb

        self._wandb, self.run_id = wandb, run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=out.absolute().name,
            dir=str(out),
            id=self.run_id,
            resume="allow",
            config=dict(settings),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps may not go back, as those of a continued run do

    def add(self, step: int, values: Values) -> None:
        histogram = self._wandb.Histogram
        shown = {name: histogram(value) if isinstance(value, list) else value for name, value in values.items()}
        self._run.log({"step": step, **shown})

    def picture(self, step: int, name: str, png: bytes) -> None:
        self._run.log({"step": step, f"samples/{name}": self._wandb.Image(_opened(png))})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """The package mlflow or mlflow-skinny, with its environment variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, …)."""

    def __init__(self, out: Path, settings: Mapping[str, Any], run_id: str | None) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.run_id = self._client.create_run(experiment, run_name=out.absolute().name).info.run_id
        self._client.log_batch(self.run_id, params=[Param(key, str(value)[:500]) for key, value in settings.items()])

    def add(self, step: int, values: Values) -> None:
        """It has no histograms."""
        now = time.time_ns() // 1_000_000
        numbers = {name: value for name, value in values.items() if not isinstance(value, list)}
        self._client.log_batch(self.run_id, metrics=[self._metric(name, value, now, step) for name, value in numbers.items()])

    def picture(self, step: int, name: str, png: bytes) -> None:
        self._client.log_image(self.run_id, _opened(png), key=f"samples/{name}", step=step)

    def close(self) -> None:
        self._client.set_terminated(self.run_id)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], str | None], Tracker]] = {"wandb": WeightsAndBiases, "mlflow": MLflow}


def require_tracker(name: TrackerName) -> None:
    """Raise PackageMissing if the tracker's package is not installed. TensorBoard's may be missing."""
    if name in TRACKERS and importlib.util.find_spec(name) is None:
        raise PackageMissing(f"{option('track', name)} needs {name}", remedy=f"pip install 'worldmodel_v[{name}]'")


class Tracking:
    """A tracker in a thread. No method waits for it but `close`, for some seconds, and none raises what it raises."""

    def __init__(self, name: str, out: Path, settings: Mapping[str, Any], first_step: int, tell: Tell) -> None:
        """Continue the run in `tracker.json`, or begin one after step 0. Raises WriteFailed."""
        ids = (read_object(out / TRACKER_NAME) or {}) if first_step else {}
        known = ids.get(name)
        self._name, self._tell, self._failure = name, tell, ""
        self._is_told = False
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(MOST_QUEUED)

        def begin() -> Tracker:
            tracker = TRACKERS[name](out, settings, known if isinstance(known, str) else None)
            publish(out / TRACKER_NAME, (json.dumps({**ids, name: tracker.run_id}) + "\n").encode())
            return tracker

        self._thread = threading.Thread(target=self._work, args=(begin,), name="tracker", daemon=True)
        self._thread.start()

    def add(self, step: int, values: Values) -> None:
        """Queue numbers of a step."""
        self._put(lambda tracker: tracker.add(step, values))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Queue a picture of a step."""
        self._put(lambda tracker: tracker.picture(step, name, png))

    def close(self) -> None:
        """Let the tracker take what is queued, for at most some seconds."""
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(SECONDS_AT_THE_END)
        if self._thread.is_alive():
            self._fail(f"has not taken everything after {SECONDS_AT_THE_END:.0f} s")
        self._tell_failure()

    def _put(self, what: Callable[[Tracker], None]) -> None:
        self._tell_failure()
        if self._failure:
            return
        try:
            self._queue.put_nowait(what)
        except queue.Full:
            self._fail("does not keep up")

    def _work(self, begin: Callable[[], Tracker]) -> None:
        try:
            tracker = begin()
            while not self._failure and (what := self._queue.get()) is not None:
                what(tracker)
            tracker.close()
        except Exception as error:  # whatever its package raises
            self._fail(f"failed: {one_line(error)}")

    def _fail(self, how: str) -> None:
        self._failure = self._failure or f"train: {self._name} {how}; the training goes on without it"

    def _tell_failure(self) -> None:
        if self._failure and not self._is_told:
            self._is_told = True
            self._tell(self._failure)


def _opened(png: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(png))
