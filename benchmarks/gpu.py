"""Checks that training and encoding are correct on a GPU, and measures how fast they are, in at most 7 minutes.

    wm-collect --out DATA --episodes 16 --max-steps 500 --episodes-per-shard 8     (where the package is installed)
    python benchmarks/gpu.py --data DATA --out FOLDER                              (on the machine with the GPU)

That machine needs PyTorch, NumPy, h5py, numba, safetensors, zstandard and Pillow. It needs no Ray, Gymnasium, TensorBoard or
network; `docs/benchmarks/gpu.md` says how to install. FOLDER then holds `gpu.json` and `gpu.md`. Both are rewritten after every
result, so an interrupted run keeps what it found. If more frames are needed than were given, the given ones are repeated
under new episode numbers.

Parts run one after another in a separate process (`Worker`). If a part fails, dies or hangs, the reason is recorded, and the
next part begins in a fresh process, because an error on a GPU can affect everything after it in the same process. A part is
skipped if too little time is left. The exit code is 1 if a part failed or a check does not hold.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import _gpu_encoding_checks as encoding_checks
import _gpu_encoding_measures as encoding_measures
import _gpu_training_checks as training_checks
import _gpu_training_measures as training_measures
import torch
from _gpu_record import TABLES_NAME, Line, Record
from _gpu_setting import Setting, tidy
from _machine import answer, describe_machine

from worldmodel_v.errors import ConfigError, WorldModelError, one_line
from worldmodel_v.storage import open_dataset

PACKAGES = ("torch", "triton", "numpy", "h5py", "numba", "safetensors", "zstandard")
MINUTES = 7.0
SMALLER = 10
"""With --small, a part needs this many times less time."""


@dataclass(frozen=True)
class Part:
    """Some findings that belong together."""

    name: str
    title: str
    kind: str
    """check or measure"""

    seconds: float
    """A high estimate of its time on an H100 with 16 cores (not measured yet); if less is left, the part is skipped."""

    lines: Callable[[Setting], Iterator[Line]]


def _speed(architecture: str) -> Callable[[Setting], Iterator[Line]]:
    return functools.partial(training_measures.training_speed, architecture=architecture)


PARTS = (
    Part("step", "One training step against the CPU", "check", 25, training_checks.one_step),
    Part("vae", "A VAE to encode with, by wm-train's own loop", "check", 25, training_checks.a_vae),
    Part("precision", "Encoding against float64", "check", 10, encoding_checks.precision),
    Part("training-conv", "Training conv", "measure", 75, _speed("conv")),
    Part("training-resnet", "Training resnet", "measure", 75, _speed("resnet")),
    Part("encoding", "Encoding from shards to shards", "measure", 50, encoding_measures.encoding_speed),
    Part("bytes", "The bytes that wm-encode writes", "check", 20, encoding_checks.same_bytes),
    Part("frame", "Encoder on one frame", "check", 5, encoding_checks.one_frame),
    Part("device", "A GPU that is not there", "check", 2, encoding_checks.no_such_device),
    Part("repeated", "Steps with one seed, twice", "check", 10, training_checks.repeated_steps),
    Part("killed", "Killed with kill -9 and continued", "check", 25, training_checks.killed),
    Part("memory", "A batch that does not fit in memory", "check", 15, encoding_checks.too_large),
    Part("processes", "Two processes on one GPU", "check", 20, encoding_checks.two_processes),
    Part("exported", "TorchScript and torch.export on the device", "check", 20, encoding_checks.exported),
    Part("ways", "--checkpoint-activations and --compile", "check", 45, training_checks.ways),
    Part("feeder", "Frames for training, without training", "measure", 10, training_measures.training_feeder),
    Part("latency", "Encoder in a controller's loop", "measure", 5, encoding_measures.latency),
    Part("batch-sizes", "Encoding by batch size, and compiled", "measure", 30, encoding_measures.encoding_batch_sizes),
)
"""In the order of importance."""

BY_NAME = {part.name: part for part in PARTS}
CALLABLE = {"train_on": training_checks.train_on, "encode_alone": encoding_checks.encode_alone}


class PartFailed(Exception):
    """A part raised, died or took too long; the message says which."""


class Worker:
    """A process that runs parts; a fresh one replaces it when a part fails. Use it as a context manager."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._process: subprocess.Popen[str] | None = None
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def lines(self, part: Part, seconds: float) -> Iterator[Line]:
        """The results of a part, line by line; raises PartFailed, at the latest after `seconds` seconds."""
        until = time.monotonic() + seconds
        try:
            self._ask(part, until)
            while (told := self._hear(until)) != "done":
                if isinstance(told, str):
                    raise PartFailed(told)
                yield Line(**told)
        except PartFailed:
            self.close()
            raise

    def close(self) -> None:
        """Kill the process and all processes that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(BrokenPipeError):
                self._pipe.close()
            self._process.wait()
            self._listener.join()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, part: Part, until: float) -> None:
        if self._process is None:
            command = [sys.executable, __file__, "--work", json.dumps(self._setting.told())]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
            self._told = queue.SimpleQueue()
            self._pipe = self._process.stdin
            self._listener = threading.Thread(target=self._listen, args=(self._process.stdout, self._told), daemon=True)
            self._listener.start()
        with suppress(BrokenPipeError):  # the process has died, which `_hear` notices
            self._pipe.write(f"{part.name} {until - 2}\n")
            self._pipe.flush()

    @staticmethod
    def _listen(pipe: IO[str], told: queue.SimpleQueue[str]) -> None:
        """In a thread: the output of the process, and an empty text when it has ended."""
        with pipe:
            for text in pipe:
                told.put(text)
        told.put("")

    def _hear(self, until: float) -> Any:
        """The next line as a dict, "done", or why the part failed."""
        try:
            text = self._told.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return "it took longer than it may, and was stopped"
        if not text:
            assert self._process is not None
            return f"its process died, with the exit code {self._process.wait()}"
        return json.loads(text)


def work(setting: Setting) -> None:
    """In the worker: run the parts that are named on standard input, and write their results to standard output."""
    sys.modules["tensorboard"] = None  # type: ignore[assignment]  # if it is installed, loading it would take wm-train seconds
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries is not a result

    def tell(what: Any) -> None:
        told.write(json.dumps(what) + "\n")
        told.flush()

    for request in sys.stdin:
        name, until = request.split()
        try:
            for line in BY_NAME[name].lines(replace(setting, left_until=float(until))):
                tell(asdict(line))
            tidy(setting)
        except BrokenPipeError:  # the main process has ended
            return
        except (Exception, SystemExit) as error:
            sys.excepthook(type(error), error, error.__traceback__)
            tell(_reason(error))
            return
        tell("done")


def _reason(error: BaseException) -> str:
    """The error in one line; for a process of `in_process`, the last line of its output."""
    lines = str(error).strip().splitlines()
    return f"{lines[0]} {lines[-1]}" if isinstance(error, SystemExit) and lines else one_line(error)


def measure(arguments: argparse.Namespace, folder: Path) -> bool:
    """Run the requested parts; returns whether the record is sound."""
    setting = Setting(
        device=arguments.device, small=arguments.small, data=arguments.data, shortest=arguments.shortest, folder=folder
    )
    deadline = time.monotonic() + 60 * arguments.minutes
    record = Record(arguments.out, _head(arguments))
    with Worker(setting) as worker:
        for part in PARTS:
            if part.name in arguments.only:
                _make(part, worker, record, deadline, arguments.small)
    print(f"{arguments.out / TABLES_NAME}: {record.summary}")
    return record.is_sound


def _make(part: Part, worker: Worker, record: Record, deadline: float, small: bool) -> None:
    """Run one part, as far as it gets."""
    start = time.monotonic()
    needed, left = part.seconds / (SMALLER if small else 1), deadline - start
    print(f"{part.title} ...", flush=True)
    record.begin(part.name, part.title, part.kind)
    if left < needed:
        record.end("skipped", 0.0, f"it may take {needed:.0f} s, and {max(0.0, left):.0f} s are left")
        return
    try:
        for line in worker.lines(part, left if small else min(left, 2 * needed + 15)):
            record.add(line)
    except PartFailed as error:
        record.end("failed", time.monotonic() - start, str(error))
        print(f"  failed: {error}", flush=True)
        return
    record.end("done", time.monotonic() - start)


def _head(arguments: argparse.Namespace) -> dict[str, Any]:
    """The device, the versions and the data."""
    dataset = open_dataset(arguments.data)
    size = sum(entry.bytes for entry in dataset.entries) / 1e6
    given = f"{dataset.num_rows:,} frames of {dataset.spec.env} in {len(dataset.entries)} shards of {size:.1f} MB in all"
    return {
        "device": _device_name(arguments.device),
        "machine": describe_machine(*PACKAGES).replace("\n", "; "),
        "cuda": torch.version.cuda or "none",
        "size": "small" if arguments.small else "full",
        "minutes": arguments.minutes,
        "data": f"{given}; looped if more are needed, with a note",
    }


def _device_name(device: str) -> str:
    """A short process asks for it, so that this one holds nothing on the device; raises ConfigError if it is missing."""
    if device == "cpu":
        return "the CPU"
    code = "import torch; p = torch.cuda.get_device_properties(0); print(f'{p.name}, {p.total_memory / 1e9:.0f} GB')"
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    if asked.returncode:
        reason = asked.stderr.strip().splitlines()[-1:]
        raise ConfigError(f"--device {device} cannot be used: {' '.join(reason)}; try --device cpu --small")
    return asked.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rollouts of wm-collect: some shards of at most 12 MB in all")
    parser.add_argument("--shortest", type=Path, help="rollouts of a single action, for the check of the shortest shard")
    parser.add_argument("--out", type=Path, default=Path(), help="where gpu.json and gpu.md go")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="little data and few steps, in about a minute on two cores")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything; parts without enough time are skipped")
    parser.add_argument("--only", nargs="+", choices=BY_NAME, default=list(BY_NAME), help="parts to run")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        answer(arguments.call, CALLABLE)
        return 0
    if arguments.work:
        work(Setting.from_told(json.loads(arguments.work)))
        return 0
    if arguments.data is None:
        parser.error("--data is required: rollouts that wm-collect made")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the worker ends with it
    try:
        with tempfile.TemporaryDirectory(prefix="wm-benchmark-", ignore_cleanup_errors=True) as folder:
            return 0 if measure(arguments, Path(folder)) else 1
    except WorldModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
