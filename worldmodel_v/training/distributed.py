"""`--num-workers N`: the steps of a training, taken by N processes of a Ray cluster through Ray Train.

Ray Train places the workers, sets up torch.distributed (gloo on CPUs, NCCL on GPUs) and monitors them. Each worker computes
its `Share` of every global batch. The first worker sends the results of the steps to the driver through a queue, and at every
checkpoint the whole state. The driver does everything else as it does for its own steps: it records, evaluates, warns, saves
and publishes. So only the driver writes, nodes share no filesystem, and a training can continue with any number of workers,
or with none. While the driver evaluates, the workers are at most `MESSAGES_AHEAD` messages ahead.

What it costs: every worker reads the whole stream and keeps only its rows. So each node needs the rollouts at the same path,
and decompression is not divided among the workers. A lost worker ends the run; the same command continues from the checkpoint.
Rejected: Ray Train's own checkpoints and restarts. They need storage that all nodes share, and would be a second kind of
checkpoint.
"""

import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldmodel_v.device import batch_in_memory
from worldmodel_v.errors import ConfigError, DatasetNotUsable, WorkerLost, WorldModelError, one_line
from worldmodel_v.execution import WorkerSettings
from worldmodel_v.execution.connection import cluster, end_of_local_ray, require_local_ray
from worldmodel_v.execution.ray_errors import first_line, lack_of_a_module
from worldmodel_v.execution.worker import code_sha256, require_code
from worldmodel_v.own_modules import folder, look_in
from worldmodel_v.selection import open_rollouts
from worldmodel_v.surface import Surface, current, worded
from worldmodel_v.training.checkpoint import Checkpoint
from worldmodel_v.training.config import LoopConfig, train_config
from worldmodel_v.training.run import StepTerms, TrainingRun
from worldmodel_v.training.share import Share

MESSAGES_AHEAD = 2
SECONDS_BETWEEN_LOOKS = 0.5

Message = tuple[Sequence[StepTerms], bytes | None, bool]
"""What the first worker sends to the driver at intervals: the terms of each step since the last message, the checkpoint after
the last of these steps if one is due, and whether an interruption makes it the last message. It has plain values, so that the
queue's process need not load torch."""


@dataclass(frozen=True)
class _Job:
    """What every worker gets."""

    config: dict[str, Any]
    """The fields of the training's config, whose class may be made of a class of the user's own."""

    settings: dict[str, Any]
    num_rows: int
    device: str
    checkpoint: Any
    """A Ray reference to the bytes of the checkpoint to continue from, or to None."""

    messages: Any
    """The queue to the driver: `Message`s, or one of our errors."""

    stop: Any
    """The queue from the driver: once it holds anything, the workers end with a checkpoint."""

    surface: Surface
    """What settings are called in messages."""

    own_modules: str | None
    """Where modules of the user's own may lie."""

    code_sha256: str
    """Of the driver's code of this package."""


def distributed_steps(run: TrainingRun, interrupted: Callable[[], bool]) -> Generator[tuple[StepTerms, bool]]:
    """Yield each step's terms and whether it is the last because of an interruption.

    `run` is updated: its step always, its weights and moments when a checkpoint is due. Raises ClusterNotUsable, one of our
    errors if a worker raised it, and WorkerLost if a worker died.
    """
    config = run.config
    num_gpus = 1.0 if config.device.startswith("cuda") else 0.0
    settings = WorkerSettings(num_workers=config.num_workers, address=config.address, num_gpus_per_worker=num_gpus)
    with cluster(settings), tempfile.TemporaryDirectory() as storage:
        workers = _Workers(run, Path(storage))
        try:
            while run.step < config.steps:
                steps, checkpoint, stopping = workers.receive(interrupted)
                for number, terms in enumerate(steps, start=1):
                    run.step += 1
                    is_latest = number == len(steps)
                    if is_latest and checkpoint is not None:
                        run.restore(Checkpoint.from_bytes(checkpoint, "the first worker"))
                    yield terms, is_latest and stopping
        finally:
            workers.end()


class _Workers:
    """Ray Train's run in its own thread, and the queues between it and the driver."""

    def __init__(self, run: TrainingRun, storage: Path) -> None:
        import ray
        from ray.util.queue import Queue

        config = run.config
        on_driver = {"num_cpus": 0}
        self._messages = Queue(MESSAGES_AHEAD, on_driver)
        self._stop = Queue(1, on_driver)
        self._told_to_stop = False
        self._error: BaseException | None = None
        start = run.checkpoint().to_bytes() if run.step else None
        use_gpu = config.device.startswith("cuda") or (
            config.device == "auto" and ray.cluster_resources().get("GPU", 0) >= config.num_workers
        )
        job = _Job(
            config={**vars(config), "data": [place.absolute() for place in config.data]},
            settings=run.settings,
            num_rows=run.dataset.num_rows,
            device="cuda" if use_gpu else "cpu",
            checkpoint=ray.put(start),
            messages=self._messages,
            stop=self._stop,
            surface=current(),
            own_modules=folder(),
            code_sha256=code_sha256(),
        )
        trainer = _trainer(job, storage)
        self._thread = threading.Thread(target=self._fit, args=(trainer,), name="ray-train", daemon=True)
        self._thread.start()

    def _fit(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # SystemExit too, if the raylet is dead
            self._error = error

    def receive(self, interrupted: Callable[[], bool]) -> Message:
        """The next message; tells the workers to stop after an interruption. Raises WorkerLost."""
        from ray.exceptions import RayActorError
        from ray.util.queue import Empty

        while True:
            require_local_ray()
            if interrupted():
                self._tell_to_stop()
            has_ended = not self._thread.is_alive()
            try:
                message = self._messages.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                if has_ended:
                    raise self._failure() from self._error
                continue
            except RayActorError as error:
                require_local_ray(within=SECONDS_BETWEEN_LOOKS)
                raise WorkerLost(
                    f"the queue from the workers died ({first_line(error)}); the last checkpoint is kept"
                ) from error
            if isinstance(message, Exception):
                raise message
            return message

    def end(self) -> None:
        """Stop the workers and wait for their end; what they still send is dropped."""
        from ray.util.queue import Empty

        if end_of_local_ray():
            return
        self._tell_to_stop()
        while self._thread.is_alive():
            try:
                self._messages.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                continue
        for queue in (self._messages, self._stop):
            queue.shutdown(force=True)

    def _tell_to_stop(self) -> None:
        if not self._told_to_stop:
            self._told_to_stop = True
            self._stop.put(True)

    def _failure(self) -> WorldModelError:
        failures = getattr(self._error, "worker_failures", None) or {"": self._error or "it ended early"}
        rank, error = next(iter(failures.items()))
        if isinstance(error, BaseException) and (lack := lack_of_a_module(error)):
            return lack
        reason = one_line(error) if isinstance(error, BaseException) else error
        return WorkerLost(
            f"a training worker died: {rank} {reason}; look for lack of memory or a lost node; the last checkpoint is kept, "
            "and the same command continues"
        )


def _trainer(job: _Job, storage: Path) -> Any:
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise ConfigError(
            f"several workers need Ray Train, which is not installed ({error})",
            field="num_workers",
            got=job.config["num_workers"],
            remedy="pip install 'worldmodel_v[distributed]', or leave it out",
        ) from None
    return TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=job.config["num_workers"], use_gpu=job.device == "cuda"),
        run_config=RunConfig(storage_path=str(storage), name="wm-train"),
    )


def _work(told: dict[str, Any]) -> None:
    """What each worker does: its share of every step; the first worker also sends the messages."""
    from ray import train
    from ray.train.torch import get_device

    job: _Job = told["job"]
    look_in(job.own_modules)
    context = train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    try:
        require_code(job.code_sha256)
        with worded(job.surface), batch_in_memory(job.config["batch_size"], get_device()):
            _take_steps(job, share)
    except WorldModelError as error:
        job.messages.put(error)
        raise


def _take_steps(job: _Job, share: Share) -> None:
    import ray
    from ray.train.torch import get_device

    config: LoopConfig = train_config(job.config["autoencoder"])(**job.config)
    dataset = open_rollouts(config.data)
    found, expected = (dataset.spec_hash, dataset.num_rows), (job.settings["data_spec_hash"], job.num_rows)
    if found != expected:
        raise DatasetNotUsable(
            "on a worker's node it is not the dataset of the driver", where=dataset.name, remedy="copy that one there"
        )
    start = ray.get(job.checkpoint)
    checkpoint = None if start is None else Checkpoint.from_bytes(start, "the driver")
    run = TrainingRun(config, job.settings, get_device(), dataset, checkpoint, share)
    unsent: list[StepTerms] = []
    for batch in run.batches():
        unsent.append(run.take_step(batch))
        due = run.checkpoint_is_due()
        if not (due or run.step % config.log_every == 0):
            continue
        stopping = share.agree(share.rank == 0 and not job.stop.empty(), run.device)
        if share.rank == 0:
            terms: list[StepTerms] = [{name: float(value) for name, value in step.items()} for step in unsent]
            job.messages.put((terms, run.checkpoint().to_bytes() if due or stopping else None, stopping))
        unsent = []
        if stopping or run.step == config.steps:
            torch.distributed.barrier()
            return
