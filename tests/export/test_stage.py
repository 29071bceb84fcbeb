"""What all formats share: nothing half-written, sources verified, where it comes from."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.builders import files_in, latent_spec, made_latent_schema, make_episode, make_latents, rollout_spec
from worldmodel_v.errors import ConfigError, DatasetNotUsable, OutputNotUsable, ShardDamaged
from worldmodel_v.export import FORMATS, export
from worldmodel_v.export.lerobot import LerobotConfig
from worldmodel_v.export.notes import action_vectors
from worldmodel_v.schema import LATENTS, ROLLOUTS, ActionSpace, space_record
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

NAMES = sorted(FORMATS)


@pytest.fixture
def sources(equal_rollouts: Path, equal_latents: Path) -> dict[type, Path]:
    return {RolloutSpec: equal_rollouts, LatentSpec: equal_latents}


def data_for(name: str, sources: dict[type, Path]) -> Path:
    return sources[FORMATS[name].reads[0]]


@pytest.mark.parametrize("name", NAMES)
def test_source_json_says_what_it_is(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    data = data_for(name, sources)
    report = export(FORMATS[name](data=data, out=tmp_path / "out-v0"))
    said = json.loads((tmp_path / "out-v0" / "source.json").read_text())
    dataset = open_dataset(data)
    assert said["format"] == report.format == name
    assert said["alignment"] == report.alignment == FORMATS[name].alignment
    assert said["notes"] == report.notes
    assert said["dataset"] == {"format": dataset.format, "spec_hash": dataset.spec_hash, "spec": dataset.spec.settings()}
    assert said["dataset"]["spec"].get("vae_sha256") == (None if dataset.format == ROLLOUTS else "a" * 64)
    episodes = [dataset.episode(i) for i in range(8)]
    assert said["episodes"] == [
        {"episode_id": e.episode_id, "seed": e.seed, "policy": "random", "num_steps": e.num_steps} for e in episodes
    ]
    assert report.episodes == 8
    assert report.bytes == sum(len(content) for content in files_in(tmp_path / "out-v0").values())
    assert [item.name for item in tmp_path.iterdir()] == ["out-v0"]


RANDOM_NAMES = {"lance"}
"""Whose own library names its files at random; tests/export/test_lance.py compares the rows."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RANDOM_NAMES])
def test_the_same_export_gives_the_same_bytes(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        export(FORMATS[name](data=data_for(name, sources), out=tmp_path / folder / "out-v0"))
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_that_holds_something_is_refused(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    out = tmp_path / "out-v0"
    out.mkdir()
    (out / "thesis.tex").write_text("42")
    with pytest.raises(OutputNotUsable, match=r"holds 'thesis\.tex' already.*; give a directory that is new or empty"):
        export(FORMATS[name](data=data_for(name, sources), out=out))
    assert files_in(tmp_path) == {"out-v0/thesis.tex": b"42"}


@pytest.mark.parametrize("name", [name for name in NAMES if len(FORMATS[name].reads) == 1])
def test_the_other_kind_of_dataset_is_refused(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    (needed,) = FORMATS[name].reads
    other = sources[LatentSpec if needed is RolloutSpec else RolloutSpec]
    with pytest.raises(DatasetNotUsable, match=rf"expected a dataset of {needed.format} \(made by wm-"):
        export(FORMATS[name](data=other, out=tmp_path / "out-v0"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_that_was_changed_is_refused(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_for(name, sources), data)
    shard = data / "shards" / "000001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardDamaged, match=r"shards/000001\.h5"):
        export(FORMATS[name](data=data, out=tmp_path / "out-v0"))
    assert [item.name for item in tmp_path.iterdir()] == ["data"]


def test_a_shard_that_another_vae_made_is_refused(tmp_path: Path) -> None:
    spec = latent_spec()
    with DatasetWriter(tmp_path / "data", spec) as writer:
        for shard, vae_sha256 in enumerate((spec.vae_sha256, "c" * 64)):
            attributes = {"vae_sha256": vae_sha256, "source_sha256": "d" * 64}
            writer.commit(shard, build_shard([make_latents(shard)], spec_hash=spec.hash, attributes=attributes))
    with pytest.raises(
        DatasetNotUsable, match=r"000001\.h5: was not made by the VAE that dataset\.json names; encode into a new"
    ):
        export(FORMATS["npz"](data=tmp_path / "data", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_directory_inside_the_dataset_is_refused(equal_rollouts: Path) -> None:
    for out in (equal_rollouts, equal_rollouts / "exported"):
        with pytest.raises(ConfigError, match="lies in the dataset that it is to export; give a directory outside of it"):
            FORMATS["npz"](data=equal_rollouts, out=out)


def dataset_of(kind: str, num_episodes: int, path: Path) -> Path:
    """Episodes of 200 actions, each 0.6 MB as frames or 0.4 MB as latents."""
    spec = rollout_spec(frame_height=32, frame_width=32) if kind == ROLLOUTS else latent_spec(made_latent_schema(256))
    attributes = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64} if kind == LATENTS else {}
    with DatasetWriter(path, spec) as writer:
        for number in range(num_episodes):
            episode = make_episode(number, 200, size=32) if kind == ROLLOUTS else make_latents(number, 200, latent_dim=256)
            writer.commit(number, build_shard([episode], spec_hash=spec.hash, attributes=attributes))
    return path


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory")
    for kind, number in itertools.product((ROLLOUTS, LATENTS), (3, 15)):
        dataset_of(kind, number, path / kind.split("/")[1] / str(number))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_number_of_episodes(name: str, few_and_many: Path, tmp_path: Path) -> None:
    peaks = []
    for number in (3, 15):
        data = few_and_many / FORMATS[name].reads[0].format.split("/")[1] / str(number)
        tracemalloc.start()
        export(FORMATS[name](data=data, out=tmp_path / f"out-v{number}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 600_000


SLOW = """
import sys, time
from pathlib import Path
from worldmodel_v.export import FORMATS, export
from worldmodel_v.progress import Silent
class Slow(Silent):
    def task(self, title, total, unit, done=0):
        return self if title == "export" else Silent()
    def advance(self, amount=1, **facts):
        time.sleep(0.1)
export(FORMATS[sys.argv[1]](data=Path(sys.argv[2]), out=Path(sys.argv[3])), Slow())
"""


def stop_in_the_middle(name: str, data: Path, out: Path, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Export slowly in another process, and send it a signal as soon as there is a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, name, str(data), str(out)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not [path for path in out.parent.rglob("*") if path.suffix in (".npz", ".hdf5", ".h5", ".lance", ".parquet")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=errors)


@pytest.mark.parametrize("name", ["hardmaru", "minari", "stable-worldmodel", "lance", "lerobot"])
def test_interrupted_in_the_middle_nothing_is_left(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    stopped = stop_in_the_middle(name, data_for(name, sources), tmp_path / "place" / "out-v0", signal.SIGINT)
    assert stopped.returncode == -signal.SIGINT
    assert stopped.stderr.endswith("KeyboardInterrupt\n")
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize("name", ["hardmaru", "ctallec", "minari", "npz"])
def test_killed_in_the_middle_nothing_looks_finished_and_the_next_run_starts_over(
    name: str, sources: dict[type, Path], tmp_path: Path
) -> None:
    data, out = data_for(name, sources), tmp_path / "place" / "out-v0"
    assert stop_in_the_middle(name, data, out, signal.SIGKILL).returncode == -signal.SIGKILL
    assert not out.exists()
    left = files_in(tmp_path / "place")
    assert left
    assert all(file.startswith(".tmp-") for file in left)
    export(FORMATS[name](data=data, out=out))
    export(FORMATS[name](data=data, out=tmp_path / "unbroken" / "out-v0"))
    assert files_in(tmp_path / "place") == files_in(tmp_path / "unbroken")


FULL = """
import resource, signal, sys
from pathlib import Path
from worldmodel_v.errors import WriteFailed
from worldmodel_v.export import FORMATS, export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    export(FORMATS[sys.argv[1]](data=Path(sys.argv[2]), out=Path(sys.argv[3])))
except WriteFailed as error:
    print(error)
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(name: str, sources: dict[type, Path], tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk; HDF5 on its own would end the process with a segmentation fault."""
    out = tmp_path / "out-v0"
    command = [sys.executable, "-c", FULL, name, str(data_for(name, sources)), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(f"{out}: could not write (File too large); nothing half-written is visible;")
    assert list(tmp_path.iterdir()) == []


def test_importing_exports_loads_neither_torch_nor_the_environments() -> None:
    code = (
        "import sys, worldmodel_v.export, worldmodel_v.cli.export; "
        "assert not {'torch', 'ray', 'gymnasium', 'minari'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("high", "dtype", "beyond"),
    [
        (2048, np.float16, None),
        (2049, np.float16, "2,048"),
        (2**24, np.float32, None),
        (-(2**24) - 1, np.float32, "16,777,216"),
    ],
)
def test_whole_numbers_that_a_format_rounds_are_said(high: int, dtype: type, beyond: str | None) -> None:
    space = gymnasium.spaces.Box(min(0, high), max(0, high), (2,), np.int64)
    source: Any = SimpleNamespace(actions_space=ActionSpace(space_record(space)))
    said = [f"action: whole numbers, of which those beyond {beyond} are rounded to {np.dtype(dtype)}"] if beyond else []
    assert action_vectors(source, dtype) == said


def test_settings_are_checked_in_python_too(tmp_path: Path) -> None:
    for wrong in (0, -3, 1.5, "50"):
        with pytest.raises(ConfigError, match=r"^fps: expected "):
            LerobotConfig(data=tmp_path / "data", out=tmp_path / "out", fps=wrong)
