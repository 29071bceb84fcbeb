"""What share of the cores training, encoding and evaluation keep on a machine that other programs use too.

    python benchmarks/shared_machine.py [--data ROLLOUTS] [--busy 4] [--rounds 5] [--only NAME ...]

Four programs a core (--busy) that only count are started, and the quickstart's VAE is trained beside them, with as many threads
as cores. Contestants take turns, alone and under that load. The fair share of a thread is the processor time that the counting
programs and the contestant had together, divided by the number of them all; the contestant's fair speed is its speed alone
times the part of a core that this is. So whatever else the machine does meanwhile is counted as it comes. Speed alone is the
best of the rounds; where other programs never leave the machine alone it is told by processor time (--by-processor): steps per
second of it, times the cores. That is too low for threads that spin while they wait: compare those by steps under load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _machine import describe_machine
from _rollouts import collect_rollouts
from _training import training

from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME, save
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.evaluation.metrics import BATCH_SIZE, score_frames
from worldmodel_v.training import parts
from worldmodel_v.training.run import TrainingRun

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
CONTESTANTS: dict[str, tuple[str, dict[str, str]]] = {
    "train: operators split among threads": ("split", {}),
    "train: the same, GOMP_SPINCOUNT=3000": ("split", {"GOMP_SPINCOUNT": "3000"}),
    "train: the same, OMP_WAIT_POLICY=passive": ("split", PASSIVE),
    "train: one thread": ("one thread", PASSIVE),
    "train: wm-train, its batch in parts": ("parts", PASSIVE),
    "evaluate: as wm-eval scores frames": ("evaluate", PASSIVE),
    "encode: wm-encode": ("encode", PASSIVE),
}
"""What a contestant does, and under which environment variables."""

COUNT = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"


def work_of(kind: str, data: Path) -> Callable[[], object]:
    """A step of training, an evaluation of a batch for each core, or all rollouts encoded."""
    if kind == "one thread":
        torch.set_num_threads(1)
    if kind == "split":
        parts.MOST_PARTS = 1
    run = training(data, batch_size=32, device="cpu", beta_warmup_steps=500, holdout_every=8)
    if kind == "evaluate":
        frames = run.heldout_frames(BATCH_SIZE * torch.get_num_threads()).frames
        return lambda: score_frames(run.model, frames, run.device)
    if kind == "encode":
        return lambda: encode_all(run, data)
    batches = run.batches()
    return lambda: run.take_step(next(batches))


def encode_all(run: TrainingRun, data: Path) -> None:
    """The latents of all rollouts, by the present weights, written and thrown away."""
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
        vae = Path(folder) / "vae"
        vae.mkdir()
        (vae / WEIGHTS_NAME).write_bytes(save(run.model))
        encode(EncodeConfig(data=data, vae=vae, out=Path(folder) / "latents", workers=0))


def contend(kind: str, data: Path) -> None:
    """In a process of its own: for each line of standard input, which says how many seconds, work and tell how much."""
    work = work_of(kind, data)
    for _ in range(2):
        work()
    print("ready", flush=True)
    for line in sys.stdin:
        start, worked, times = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < float(line):
            work()
            times += 1
        print(json.dumps([times, time.perf_counter() - start, time.process_time() - worked]), flush=True)


class Contestant:
    """A program that waits until it is asked to work."""

    def __init__(self, kind: str, environment: dict[str, str], data: Path) -> None:
        command = [sys.executable, __file__, "--contend", kind, "--data", str(data)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        assert self._answer() == "ready\n"
        self.alone: list[float] = []
        self.by_processor: list[float] = []
        self.loaded: list[float] = []
        self.fair: list[float] = []

    def work(self, seconds: float) -> tuple[int, float, float]:
        """How often it worked, and in how many seconds, and of processor time."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return tuple(json.loads(self._answer()))

    def end(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


@contextmanager
def busy_programs(number: int) -> Any:
    """So many programs that count; gives a function that tells the processor time that they had together, in seconds."""
    programs = [subprocess.Popen([sys.executable, "-S", "-c", COUNT]) for _ in range(number)]
    try:
        time.sleep(0.5)
        yield lambda: sum(processor_time(program.pid) for program in programs)
    finally:
        for program in programs:
            program.kill()
            program.wait()


def processor_time(pid: int) -> float:
    """Of a process so far, in seconds."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(contestants: dict[str, Contestant], rounds: int, busy: int, seconds: float) -> None:
    """Let all work by turns, alone and under load."""
    cores = len(os.sched_getaffinity(0))
    for _ in range(rounds):
        for contestant in contestants.values():
            times, wall, processor = contestant.work(seconds / 2)
            contestant.alone.append(times / wall)
            contestant.by_processor.append(times / processor * cores)
        with busy_programs(busy * cores) as time_of_load:
            for contestant in contestants.values():
                start, before = time.perf_counter(), time_of_load()
                times, wall, processor = contestant.work(seconds)
                load = (time_of_load() - before) / (time.perf_counter() - start)
                contestant.loaded.append(times / wall)
                contestant.fair.append((load + processor / wall) / ((busy + 1) * cores))


def report(contestants: dict[str, Contestant], by_processor: bool) -> None:
    """Print what each had of its fair speed: the median of the rounds."""
    for name, contestant in contestants.items():
        alone = max(contestant.by_processor if by_processor else contestant.alone)
        shares = sorted(rate / (alone * fair) for rate, fair in zip(contestant.loaded, contestant.fair, strict=True))
        print(
            f"  {name:42} alone {alone:6.2f}/s, under load {statistics.median(contestant.loaded):6.3f}/s, fair part of a core "
            f"{statistics.median(contestant.fair):.3f}: {statistics.median(shares):.2f} of its fair share "
            f"({shares[0]:.2f} to {shares[-1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rollouts of wm-collect; collected if absent")
    parser.add_argument("--busy", type=int, default=4, help="counting programs for each core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long a contestant works under load; half of it alone")
    parser.add_argument("--by-processor", action="store_true", help="tell the speed alone by processor time")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        contend(arguments.contend, arguments.data)
        return
    print(describe_machine("torch", "numpy"))
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
        data = arguments.data or collect_rollouts(Path(folder) / "rollouts")
        contestants = {name: Contestant(*CONTESTANTS[name], data) for name in arguments.only}
        measure(contestants, arguments.rounds, arguments.busy, arguments.seconds)
        report(contestants, arguments.by_processor)
        for contestant in contestants.values():
            contestant.end()


if __name__ == "__main__":
    main()
