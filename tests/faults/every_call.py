"""A process that runs commands again and again, each time with another system call failing, and then without.

    LD_PRELOAD=failing_calls.so python -m tests.faults.every_call FOLDER COMMAND:TRIES... [KIND:ERROR]

The calls are those on files below the folder: of the command's input, and of what it writes. How many there are, and of which
kinds, a first run tells. TRIES of them, spread over all and over the kinds, each fail in a run of their own, with one of the
errors that the system gives such a call: once, or with all that follow. Every run is a fork of a process that has imported
everything and computed nothing. Prints one JSON object for each try, with what is wrong about it. With KIND:ERROR, all calls of
this kind fail with this error, as on a file system that knows none.
"""

import atexit
import ctypes
import hashlib
import importlib
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.commands import BIN, options
from tests.conftest import stamp_config
from tests.faults.every_step import (
    EVALUATION,
    EXPORTING,
    SMALL,
    TRAINING,
    dataset_content,
    encode_small,
    evaluation_content,
    export_content,
    in_a_fork,
    train_small,
    training_content,
)
from worldmodel_v.collection import collect
from worldmodel_v.envs import STAMP_ENV_ID, FramePreprocessor
from worldmodel_v.export import FORMATS
from worldmodel_v.export.lengths import EqualLengthConfig
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage.lock import LOCK_NAME
from worldmodel_v.storage.publish import TEMPORARY_PREFIX, is_temporary

KINDS = ("open", "read", "write", "sync", "rename", "link", "unlink", "stat", "truncate", "mkdir", "mmap", "close")
"""As in `failing_calls.c`."""

FULL = ("ENOSPC", "EDQUOT", "EROFS", "EIO")
ERRORS = {
    "open": ("EMFILE", "EACCES", "ENOSPC", "ESTALE", "EIO", "EROFS", "EINTR"),
    "read": ("EIO", "ESTALE", "EINTR"),
    "write": (*FULL, "ESTALE", "EINTR"),
    "sync": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "rename": (*FULL, "EACCES"),
    "link": (*FULL, "EACCES"),
    "unlink": ("EROFS", "EACCES", "EIO", "ESTALE"),
    "stat": ("EACCES", "ESTALE", "EIO"),
    "truncate": ("EIO", "EROFS", "EINTR"),
    "mkdir": (*FULL, "EACCES"),
    "mmap": ("EMFILE", "EACCES"),
    "close": ("EIO", "ENOSPC", "EINTR"),
}
"""What the system gives a call of each kind."""

SECONDS = 300
"""After which a run counts as hanging."""


@dataclass(frozen=True)
class Command:
    """A command on a small input."""

    words: Callable[[Path], list[object]]
    """Its words, for the folder with its input, `rollouts`, `vae` and `latents`; it writes to `out` there."""

    content: Callable[[Path], dict[str, str]]
    """What must come out the same whatever failed: the SHA-256 of each file in `out`, by its name."""

    reads: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


def collect_words(folder: Path) -> list[object]:
    settings = {"env": STAMP_ENV_ID, "policy": "random", "seed": 7, "workers": 0, **SMALL}
    return ["wm-collect", "--out", folder / "out", *options(settings)]


def train_words(folder: Path) -> list[object]:
    settings = {"steps": 4, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "checkpoint_every": 2, "keep": 2}
    settings |= {"holdout_every": 2, "log_every": 1, "device": "cpu"}
    return ["wm-train", "--data", folder / "rollouts", "--out", folder / "out", *options(settings)]


def of_vae(folder: Path) -> list[object]:
    return ["--data", folder / "rollouts", "--vae", folder / "vae"]


def exporting(format_: str) -> Command:
    source = "latents" if FORMATS[format_].reads == (LatentSpec,) else "rollouts"
    reads = ("rollouts",) if source == "rollouts" else ("rollouts", "vae", "latents")
    lengths = ["--pad"] if issubclass(FORMATS[format_], EqualLengthConfig) else []
    content = lance_content if format_ == "lance" else export_content
    return Command(
        lambda folder: ["wm-export", format_, "--data", folder / source, "--out", folder / "out/toy-v0", *lengths],
        content,
        reads,
    )


def lance_content(out: Path) -> dict[str, str]:
    """The SHA-256 of the rows of each table: Lance names its files at random."""
    import lance

    tables = {
        table.name: lance.dataset(str(table)).to_table().combine_chunks() for table in out.rglob("*.lance") if table.is_dir()
    }
    return {
        name: hashlib.sha256(b"".join(batch.serialize() for batch in table.to_batches())).hexdigest()
        for name, table in tables.items()
    }


COMMANDS = {
    "collect": Command(collect_words, dataset_content),
    "train": Command(train_words, training_content, ("rollouts",), TRAINING),
    "encode": Command(
        lambda folder: ["wm-encode", *of_vae(folder), "--out", folder / "out", "--device", "cpu"],
        dataset_content,
        ("rollouts", "vae"),
    ),
    "eval": Command(
        lambda folder: ["wm-eval", *of_vae(folder), "--out", folder / "out", "--frames", 40, "--device", "cpu"],
        evaluation_content,
        ("rollouts", "vae"),
        EVALUATION,
    ),
    "select": Command(
        lambda folder: ["wm-select", "--data", folder / "rollouts", "--out", folder / "out", "--drop", "2,4"],
        dataset_content,
        ("rollouts",),
    ),
    **{format_: exporting(format_) for format_ in FORMATS},
    "model": Command(
        lambda folder: ["wm-export", "model", *of_vae(folder), "--out", folder / "out/model", "--formats", "torch.export"],
        export_content,
        ("rollouts", "vae"),
        EXPORTING,
    ),
}


@dataclass(frozen=True)
class Fault:
    """Which calls fail, and how."""

    first: int
    """The number of the first that fails, from 0."""

    error: str = "EIO"
    stays: bool = False
    """Whether all that follow fail too."""

    kind: str | None = None
    """The kind that fails, and alone is counted; None: all."""


NOTHING = Fault(1 << 60)


class Record(ctypes.Structure):
    """What `failing_calls.c` tells of the last run."""

    _fields_ = (
        ("calls", ctypes.c_long),
        ("failed", ctypes.c_long),
        ("first", ctypes.c_char * 4096),
        ("kinds", ctypes.c_char * 65536),
    )


def shim() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.faults_record.restype = ctypes.POINTER(Record)
    library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    return library


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    code: int
    output: str
    errors: str
    calls: list[str]
    """The kind of each call."""

    failed: int
    path: str
    """Of the first call that failed."""


def run(command: Command, folder: Path, fault: Fault = NOTHING) -> Ending:
    """Run a command in a fork."""
    library, streams = shim(), [folder.with_name(f"{folder.name}-{name}") for name in ("output", "errors")]
    process = os.fork()
    if not process:
        become(list(map(str, command.words(folder))), streams, folder, fault)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    told: Record = library.faults_record().contents
    calls = [KINDS[kind] for kind in ctypes.string_at(ctypes.addressof(told) + Record.kinds.offset, min(told.calls, 65536))]
    output, errors = (stream.read_text() for stream in streams)
    return Ending(code, output, errors, calls, told.failed, told.first.decode())


def become(words: list[str], streams: list[Path], folder: Path, fault: Fault) -> None:
    """Make of a fork the command, as `tests/fork_server.py` does; does not return."""
    torch.set_num_threads(1)
    signal.alarm(SECONDS)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [str(BIN / words[0]), *words[1:]]
    kind = -1 if fault.kind is None else KINDS.index(fault.kind)
    last = 1 << 62 if fault.stays else fault.first + 1
    number = getattr(importlib.import_module("errno"), fault.error)
    shim().faults_arm(os.fsencode(folder), kind, fault.first, last, number)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 101
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def tries(command: Command, folder: Path, faults: Callable[[list[str]], Iterable[Fault]]) -> Iterator[dict[str, object]]:
    """Run it with each of the faults that are made of the kinds of its calls, and say what came of each."""
    unbroken = run(command, folder)
    assert unbroken.code == 0, unbroken.errors
    expected = folder.with_name(f"{folder.name}-unbroken.json")
    assert in_a_fork(lambda: expected.write_text(json.dumps(content(command, folder)))) == 0
    shutil.rmtree(folder / "out")
    for fault in faults(unbroken.calls):
        start = time.monotonic()
        broken = run(command, folder, fault)
        wrong = what_is_wrong(command, folder, fault, broken, expected)
        yield {
            **{
                "first": fault.first,
                "kind": fault.kind or unbroken.calls[fault.first],
                "error": fault.error,
                "stays": fault.stays,
            },
            **{"path": broken.path.removeprefix(f"{folder}/"), "code": broken.code, "said": broken.errors, "wrong": wrong},
            **{"seconds": round(time.monotonic() - start, 2)},
        }
        shutil.rmtree(folder / "out", ignore_errors=True)


def spread(calls: list[str], number: int) -> Iterator[Fault]:
    """Some of the calls, spread over all and of each kind, with the errors of their kind in turn, once or for good."""
    by_kind = {kind: [place for place, of in enumerate(calls) if of == kind] for kind in KINDS}
    share = -(-number // sum(1 for places in by_kind.values() if places))
    ways = itertools.cycle((False, False, True))
    for kind, places in by_kind.items():
        errors = itertools.cycle(ERRORS[kind])
        picked = dict.fromkeys(places[len(places) * i // share] for i in range(share)) if places else ()
        for place in picked:
            error, stays = next(errors), next(ways)
            yield Fault(place, error, stays and error != "EINTR")  # a call that is interrupted is made again


def what_is_wrong(command: Command, folder: Path, fault: Fault, broken: Ending, expected: Path) -> list[str]:
    """What a run may not do whatever fails, and what the next one must mend."""
    wrong = []
    if "Traceback" in broken.errors + broken.output:
        wrong.append("a traceback")
    if broken.code not in (0, 1, 2):
        wrong.append(f"left with {broken.code}")
    if broken.code in (1, 2) and not re.search(rf"^wm-[a-z]+: .*{re.escape(str(folder))}", broken.errors, re.MULTILINE):
        wrong.append("names no path")
    if re.search(r"delete|train again|restore|damage", broken.errors):
        wrong.append("calls something damaged")
    if broken.code == 0:
        wrong += ["is not as unbroken"] * (not same(command, folder, expected))
    again = run(command, folder)
    if again.code and not (broken.code == 0 and "holds" in again.errors and "already" in again.errors):
        wrong.append(f"cannot be run again: {again.errors}")
    elif not same(command, folder, expected):
        wrong.append("run again, it is not as unbroken")
    left = [file for file in folder.rglob("*") if is_temporary(file)]
    if fault.stays:  # the empty hidden folder of an export, which nothing could remove
        left = [file for file in left if any(item.name != LOCK_NAME for item in file.rglob("*"))]
    return wrong + [f"leaves {file.relative_to(folder)}" for file in left]


def same(command: Command, folder: Path, expected: Path) -> bool:
    """Whether what it made has the content that a file says."""
    return in_a_fork(lambda: require_same(content(command, folder), json.loads(expected.read_text()))) == 0


def content(command: Command, folder: Path) -> dict[str, str]:
    """But for what is temporary, which is the next run's to remove."""
    return {name: digest for name, digest in command.content(folder / "out").items() if TEMPORARY_PREFIX not in name}


def require_same(found: dict[str, str], expected: dict[str, str]) -> None:
    assert found == expected, sorted(found.items() ^ expected.items())


def main(folder: Path, asked: list[str]) -> None:
    FramePreprocessor((64, 64, 3), Preprocessing(frame_height=8, frame_width=8))(
        np.zeros((64, 64, 3), np.uint8)
    )  # compiled here, not in every fork
    pairs = dict(words.split(":") for words in asked)
    always = [Fault(0, pairs.pop(kind), stays=True, kind=kind) for kind in KINDS if kind in pairs]
    numbers = {name: int(number) for name, number in pairs.items()}
    for name in dict.fromkeys(name for command in numbers for name in COMMANDS[command].imports):
        importlib.import_module(name)
    make_inputs(folder / "input", {name for command in numbers for name in COMMANDS[command].reads})
    for name, number in numbers.items():
        place = folder / name
        place.mkdir()
        for read in COMMANDS[name].reads:
            shutil.copytree(folder / "input" / read, place / read)
        for told in tries(COMMANDS[name], place, lambda calls, number=number: always or spread(calls, number)):
            sys.stdout.write(json.dumps({"command": name, **told}) + "\n")
            sys.stdout.flush()


def make_inputs(folder: Path, names: set[str]) -> None:
    making = {
        "rollouts": lambda: collect(stamp_config(folder / "rollouts", **SMALL)),
        "vae": lambda: train_small(folder / "vae"),
        "latents": lambda: encode_small(folder / "latents"),
    }
    for name, make in making.items():
        if name in names:
            assert in_a_fork(make) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
