"""Every mistake that a user can make: one line that says what, where and what to do; exit code 2; nothing half-written."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.builders import files_in
from worldmodel_v.cli import collect, encode, export, importing, inspect, pipeline, select, train, view
from worldmodel_v.cli import eval as evaluation
from worldmodel_v.collection import CollectConfig
from worldmodel_v.collection import collect as collect_into
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.export import FORMATS
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig

MAINS: dict[str, Callable[[], None]] = {
    "wm-collect": collect.main,
    "wm-train": train.main,
    "wm-encode": encode.main,
    "wm-view": view.main,
    "wm-eval": evaluation.main,
    "wm-select": select.main,
    "wm-export": export.main,
    "wm-import": importing.main,
    "wm-inspect": inspect.main,
    "wm-pipeline": pipeline.main,
}


class Blind(gymnasium.Env):
    """An environment without images."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)


gymnasium.register("tests/Blind-v0", entry_point=Blind)


class Refusal:
    """Runs a command that must be refused, and gives its one line of error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *argv: object, code: int = 2) -> str:
        self._monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as exit_:
            MAINS[str(argv[0])]()
        printed = self._capsys.readouterr()
        assert exit_.value.code == code, printed.err
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert printed.err.startswith(f"{argv[0]}: ")
        assert printed.err.count("\n") == 1
        return printed.err


@pytest.fixture
def refuse(stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Refusals on a machine that has collected before, where nothing has to be compiled on the way to them."""
    return Refusal(monkeypatch, capsys)


@pytest.fixture
def collect_refused(refuse: Refusal, tmp_path: Path) -> Callable[..., str]:
    """Runs wm-collect into a new directory, which must not exist afterwards."""

    def run(*options: object) -> str:
        out = tmp_path / "out"
        defaults = {"--out": out, "--workers": 0, "--env": "worldmodel_v/Stamp-v0"}
        line = refuse(
            "wm-collect", *itertools.chain(*((name, defaults[name]) for name in defaults if name not in options)), *options
        )
        assert not out.exists()
        return line

    return run


# Collecting


def test_an_unknown_environment(collect_refused: Callable[..., str]) -> None:
    line = collect_refused("--env", "NoSuchEnv-v0")
    assert "environment 'NoSuchEnv-v0'" in line
    assert "doesn't exist" in line


def test_a_module_that_cannot_be_imported(collect_refused: Callable[..., str]) -> None:
    assert "No module named 'no_such_module'" in collect_refused("--env", "no_such_module:Env-v0")


def test_arguments_that_the_environment_does_not_take(collect_refused: Callable[..., str]) -> None:
    assert "wheels" in collect_refused("--env-kwargs", '{"wheels": 3}')


def test_arguments_that_are_not_json(collect_refused: Callable[..., str]) -> None:
    assert "--env-kwargs continuous=False: is not JSON" in collect_refused("--env-kwargs", "continuous=False")


def test_an_environment_without_images(collect_refused: Callable[..., str]) -> None:
    line = collect_refused("--env", "tests/Blind-v0")
    assert "tests/Blind-v0: gives no images" in line
    assert "expected an image observation or the render mode rgb_array" in line


def test_an_unknown_policy(collect_refused: Callable[..., str]) -> None:
    assert (
        "unknown policy 'bronian': expected one of random, brownian, driver, random-start, mixture, "
        "checkpoint:MODULE:FACTORY:FILE, onnx:FILE, sb3:FILE, or module:factory" in collect_refused("--policy", "bronian")
    )


def test_a_policy_of_another_package_that_is_none(collect_refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"nothing")
    text = "model.zip cannot be read as a model of Stable-Baselines3 (BadZipFile); give the zip that its model.save wrote"
    assert text in collect_refused("--policy", f"sb3:{tmp_path}/model.zip")


def test_a_policy_that_does_not_fit_the_actions(collect_refused: Callable[..., str]) -> None:
    line = collect_refused("--env-kwargs", '{"discrete": true}', "--policy", "brownian")
    assert "brownian needs bounded continuous actions" in line


def test_a_count_between_two_bounds(collect_refused: Callable[..., str]) -> None:
    assert "--episodes-per-shard: expected 1 to 4096, got 0" in collect_refused("--episodes-per-shard", 0)
    assert "--episodes-per-shard: expected 1 to 4096, got 4097" in collect_refused("--episodes-per-shard", 4097)


@pytest.mark.parametrize("option", ["--episodes", "--max-steps", "--frame-skip"])
def test_counts_that_must_be_positive(collect_refused: Callable[..., str], option: str) -> None:
    assert f"{option}: expected at least 1, got 0" in collect_refused(option, 0)


def test_whole_numbers_that_a_dataset_cannot_record(collect_refused: Callable[..., str]) -> None:
    assert f"--seed: expected a number below 2^63, got {10**21}" in collect_refused("--seed", 10**21)
    assert "is not JSON such as '{\"continuous\": false}': a whole number of 22 digits" in collect_refused(
        "--env-kwargs", f'{{"length": {10**21}}}'
    )


def test_more_steps_and_episodes_than_a_dataset_holds(collect_refused: Callable[..., str]) -> None:
    assert f"--max-steps: expected a number below 2^31 - 1, got {2**31 - 1}" in collect_refused("--max-steps", 2**31 - 1)
    line = collect_refused("--episodes", 3_000_001, "--episodes-per-shard", 3)
    assert "--episodes: expected at most 3000000, which are 1000000 shards, got 3000001; ask for fewer, or raise " in line


@pytest.mark.parametrize(
    ("size", "nearest"), [(84, 88), (1032, 1024), ("64x1183", "64x1024"), (100_000, 1024), (7, 8), ("0x64", "8x64"), (0, 8)]
)
def test_frames_that_no_architecture_trains_on(
    collect_refused: Callable[..., str], size: int | str, nearest: int | str
) -> None:
    line = collect_refused("--frame-size", size)
    assert (
        f"--frame-size {size}: no architecture trains on frames of {size if 'x' in str(size) else f'{size}x{size}'}; " in line
    )
    assert line.endswith(f"expected a height and width of 8 to 1024, multiples of 8, such as {nearest}\n")


def test_frames_of_no_size(collect_refused: Callable[..., str]) -> None:
    assert "--frame-size: expected a number such as 64, or HEIGHTxWIDTH such as 96x128, got '64by48'" in collect_refused(
        "--frame-size", "64by48"
    )


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e7"])
def test_a_timeout_that_is_none(collect_refused: Callable[..., str], seconds: str) -> None:
    assert f"--episode-timeout: expected 0 to 1e+06, got {float(seconds)}" in collect_refused("--episode-timeout", seconds)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ("0:65,0:64", "--crop 0:65,0:64: does not lie in the environment's frame of 64 rows and 64 columns"),
        ("5:5,0:64", "--crop 5:5,0:64: does not lie in the environment's frame of 64 rows and 64 columns"),
        ("rows", '--crop: expected "auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96, got \'rows\''),
        ("0:64", '--crop: expected "auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96, got \'0:64\''),
    ],
)
def test_a_crop_outside_the_frame_or_malformed(collect_refused: Callable[..., str], crop: str, message: str) -> None:
    assert message in collect_refused("--crop", crop)


def test_a_cluster_without_workers(
    collect_refused: Callable[..., str], refuse: Refusal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = "--address nowhere: without workers nothing is done on a cluster; ask for --workers, or leave it out\n"
    assert line in collect_refused("--address", "nowhere")
    assert line in refuse("wm-encode", "--data", "x", "--vae", "x", "--out", tmp_path / "out", "--address", "nowhere")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")  # of all commands of a shell, those without workers too
    assert collect_into(CollectConfig(out=tmp_path / "out", env="worldmodel_v/Stamp-v0", episodes=1, workers=0)).episodes == 1


def test_no_disk_space(collect_refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    assert "no disk space: 0.0 MB are free" in collect_refused()


def test_a_directory_that_holds_something_else(refuse: Refusal, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("42")
    line = refuse("wm-collect", "--out", tmp_path, "--workers", 0, "--env", "worldmodel_v/Stamp-v0")
    assert "holds 'thesis.tex' but no dataset.json; give a directory that is empty, new, or a dataset to continue" in line
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_settings_than_the_datasets(refuse: Refusal, stamp_rollouts: Path) -> None:
    before = (stamp_rollouts / "index.jsonl").read_bytes()
    settings = ("--env", "worldmodel_v/Stamp-v0", "--episodes-per-shard", 3, "--policy", "random", "--workers", 0)
    line = refuse("wm-collect", "--out", stamp_rollouts, *settings, "--seed", 8, "--max-steps", 9)
    assert "max_steps is 1000 there, 9 asked; seed is 7 there, 8 asked" in line
    assert (stamp_rollouts / "index.jsonl").read_bytes() == before


def test_an_output_that_is_a_file(refuse: Refusal, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert "is a file" in refuse("wm-collect", "--out", tmp_path / "out", "--workers", 0, "--env", "worldmodel_v/Stamp-v0")


def test_an_output_below_a_file(refuse: Refusal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refuse("wm-collect", "--out", tmp_path / "file" / "out", "--workers", 0, "--env", "worldmodel_v/Stamp-v0")
    assert "cannot be written to (Not a directory)" in line


# Training


def test_training_on_nothing(refuse: Refusal, tmp_path: Path) -> None:
    line = refuse("wm-train", "--data", tmp_path / "absent", "--out", tmp_path / "vae")
    assert "is no directory; give a directory that wm-collect wrote" in line


def test_training_on_latents(refuse: Refusal, stamp_latents: Path, tmp_path: Path) -> None:
    line = refuse("wm-train", "--data", stamp_latents, "--out", tmp_path / "vae")
    assert "expected a dataset of worldmodel_v/rollouts (made by wm-collect), got worldmodel_v/latents" in line
    assert not (tmp_path / "vae").exists()


def test_training_on_an_empty_dataset(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    shutil.copytree(stamp_rollouts, tmp_path / "data")
    (tmp_path / "data" / "index.jsonl").write_bytes(b"")
    assert "the dataset is empty; run wm-collect first" in refuse(
        "wm-train", "--data", tmp_path / "data", "--out", tmp_path / "vae"
    )


def test_training_on_fewer_episodes_than_the_split_needs(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    line = refuse("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", "--holdout-every", 9)
    assert "has 8 episodes; holding out every 9th needs at least 9; collect more, or lower --holdout-every" in line
    assert not (tmp_path / "vae").exists()


def test_training_on_with_other_settings(refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path) -> None:
    line = refuse("wm-train", "--data", stamp_rollouts, "--out", stamp_vae, "--steps", 3, "--holdout-every", 4)
    assert "batch_size is 16 there, 256 asked; latent_dim is 8 there, 32 asked" in line


def test_a_vae_that_does_not_fit_the_frames(refuse: Refusal, tmp_path: Path) -> None:
    data = tmp_path / "rollouts"
    collect_into(CollectConfig(out=data, env="worldmodel_v/Stamp-v0", episodes=2, workers=0, policy="random", frame_size=32))
    command = ("wm-train", "--data", data, "--out", tmp_path / "vae", "--holdout-every", 2)
    line = refuse(*command, "--architecture", "ha2018")
    assert "--architecture ha2018: takes frames of 64x64, these are 32x32; choose another architecture, or collect with" in line
    assert not (tmp_path / "vae").exists()


def test_a_condition_that_is_not_recorded(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    command = ("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", "--holdout-every", 4)
    line = refuse(*command, "--condition", "step", "speed")
    assert "records no 'speed' for a VAE to be conditional on; it has action, step, action_stamp, " in line
    assert not (tmp_path / "vae").exists()


def test_options_of_training_that_take_the_meaning_from_each_other(refuse: Refusal, tmp_path: Path) -> None:
    command = ("wm-train", "--data", tmp_path, "--out", tmp_path / "vae")
    assert "--free-bits 0.1: holds up the same KL as --kl-tolerance; choose one" in refuse(
        *command, "--free-bits", 0.1, "--kl-tolerance", 0.5
    )


def test_a_batch_that_no_machine_holds(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    line = refuse("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", "--batch-size", 999_999_999_999)
    assert "--batch-size: expected 1 to 65536, got 999999999999" in line
    assert not (tmp_path / "vae").exists()


@pytest.mark.parametrize("option", ["--max-grad-norm", "--learning-rate"])
def test_a_number_that_no_record_holds(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path, option: str) -> None:
    line = refuse("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", "--holdout-every", 4, option, "inf")
    assert f"{option}: expected a finite number" in line
    assert not (tmp_path / "vae").exists()


def test_a_device_that_is_not_there(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    line = refuse("wm-train", "--data", stamp_rollouts, "--out", tmp_path, "--holdout-every", 4, "--device", "teapot")
    assert "--device teapot: cannot be used" in line


def test_a_loss_that_diverges_keeps_the_last_good_checkpoint(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    command = ("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", "--holdout-every", 4, "--batch-size", 8)
    line = refuse(*command, "--learning-rate", 1e30, "--max-grad-norm", 1e30, "--log-every", 1, "--quiet", code=1)
    assert "NaN or infinite" in line
    assert "has no checkpoint yet" in line
    assert not (tmp_path / "vae" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "vae" / "vae.safetensors").exists()


# Damaged data


@pytest.mark.parametrize("command", ["wm-train", "wm-encode", "wm-inspect"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "other bytes"])
def test_a_shard_that_is_damaged(
    refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path, command: str, damage: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(stamp_rollouts, data)
    shard = data / "shards" / "000001.h5"
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content[: len(content) // 2] if damage == "truncated" else content[:-2000] + b"\0" * 2000)
    options = {
        "wm-train": ("--data", data, "--out", tmp_path / "vae", "--holdout-every", 4),
        "wm-encode": ("--data", data, "--vae", stamp_vae, "--out", tmp_path / "latents", "--quiet"),
        "wm-inspect": (data,),
    }
    line = refuse(command, *options[command])
    assert "shards/000001.h5" in line


def test_a_description_that_is_damaged(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    shutil.copytree(stamp_rollouts, tmp_path / "data")
    description = json.loads((tmp_path / "data" / "dataset.json").read_text())
    description["spec"]["seed"] = 8
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description))
    assert "dataset.json: not a valid description of a dataset (spec_hash" in refuse("wm-inspect", tmp_path / "data")


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the system let nobody read files of this name. (Modes do not bind root.)"""

    def guarded(real: Callable) -> Callable:
        def call(path: object, *rest: object, **named: object) -> object:
            if Path(str(path)).name == name:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *rest, **named)

        return call

    monkeypatch.setattr(os, "open", guarded(os.open))
    monkeypatch.setattr(Path, "open", guarded(Path.open))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *[("wm-train", name) for name in ("dataset.json", "index.jsonl", "000001.h5")],
        *[("wm-encode", name) for name in ("vae.safetensors", "000001.h5")],
        *[("wm-inspect", name) for name in ("dataset.json", "index.jsonl", "000001.h5")],
        *[("wm-inspect --verify", name) for name in ("index.jsonl", "000001.h5")],
        *[("wm-inspect VAE", name) for name in ("vae.safetensors", "checkpoint.safetensors", "metrics.jsonl")],
    ],
)
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
    refuse: Refusal,
    stamp_rollouts: Path,
    stamp_vae: Path,
    tmp_path: Path,
    command: str,
    name: str,
) -> None:
    options = {
        "wm-train": ("--data", stamp_rollouts, "--out", tmp_path / "vae", "--holdout-every", 4),
        "wm-encode": ("--data", stamp_rollouts, "--vae", stamp_vae, "--out", tmp_path / "latents", "--quiet"),
        "wm-inspect": (stamp_rollouts,),
        "wm-inspect --verify": (stamp_rollouts, "--verify", "--quiet"),
        "wm-inspect VAE": (stamp_vae,),
    }
    forbid(monkeypatch, name)
    line = refuse(command.split()[0], *options[command])
    folder = stamp_vae if command == "wm-inspect VAE" or name == "vae.safetensors" else stamp_rollouts
    file = folder / "shards" / name if name.endswith(".h5") else folder / name
    assert line.endswith(f": {file}: cannot be read (Permission denied); give yourself the right to read it\n")


def test_a_shard_that_may_not_be_read_is_not_deleted(
    monkeypatch: pytest.MonkeyPatch, refuse: Refusal, stamp_rollouts: Path, tmp_path: Path
) -> None:
    """One without its line in the index, which continuing would adopt, or remove if it were damaged."""
    data = shutil.copytree(stamp_rollouts, tmp_path / "data")
    lines = (data / "index.jsonl").read_text().splitlines(keepends=True)
    (data / "index.jsonl").write_text("".join(lines[:2]))
    forbid(monkeypatch, "000002.h5")
    settings = ("--env", "worldmodel_v/Stamp-v0", "--episodes", 8, "--episodes-per-shard", 3, "--policy", "random", "--seed", 7)
    assert "shards/000002.h5: cannot be read (Permission denied)" in refuse(
        "wm-collect", "--out", data, *settings, "--workers", 0
    )
    assert (data / "shards" / "000002.h5").is_file()


# Encoding


def test_a_vae_that_is_not_there_or_not_finished(
    refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path
) -> None:
    command = ("wm-encode", "--data", stamp_rollouts, "--out", tmp_path / "latents", "--vae")
    assert "it is no directory of wm-train" in refuse(*command, tmp_path / "absent")
    shutil.copytree(stamp_vae, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "vae.safetensors").unlink()
    assert "its training is not finished" in refuse(*command, tmp_path / "unfinished")
    assert not (tmp_path / "latents").exists()


def test_a_vae_for_frames_of_another_size(
    refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("--env", "worldmodel_v/Stamp-v0", "--frame-size", 32, "--episodes", 1, "--workers", 0, "--quiet", "--json")
    monkeypatch.setattr(sys, "argv", ["wm-collect", "--out", str(tmp_path / "small"), *map(str, small)])
    collect.main()
    monkeypatch.undo()
    from worldmodel_v.encoding import EncodeConfig
    from worldmodel_v.encoding import encode as run_encode
    from worldmodel_v.errors import ModelNotUsable

    with pytest.raises(ModelNotUsable, match=r"takes 64x64 frames, .*small holds 32x32"):
        run_encode(EncodeConfig(data=tmp_path / "small", vae=stamp_vae, out=tmp_path / "latents"))
    assert not (tmp_path / "latents").exists()


def test_latents_of_another_vae_in_the_same_directory(
    refuse: Refusal, stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    from worldmodel_v.training import train as run_train

    other = tmp_path / "other"
    run_train(TrainConfig(data=stamp_rollouts, out=other, steps=1, batch_size=4, latent_dim=8, holdout_every=4, seed=1))
    line = refuse("wm-encode", "--data", stamp_rollouts, "--vae", other, "--out", stamp_latents)
    assert "holds latents of another VAE" in line
    line = refuse("wm-inspect", stamp_latents, "--vae", other)
    assert "was made by the VAE" in line


def test_latents_whose_rollouts_were_replaced(
    refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(stamp_rollouts, data)
    lines = (data / "index.jsonl").read_text().splitlines()
    entry = json.loads(lines[0]) | {"sha256": "0" * 64}
    (data / "index.jsonl").write_text("\n".join([json.dumps(entry), *lines[1:]]) + "\n")
    line = refuse("wm-encode", "--data", data, "--vae", stamp_vae, "--out", stamp_latents)
    assert "shards/000000.h5: was not encoded from the" in line


# Exporting


def test_unequal_episodes_without_a_choice(refuse: Refusal, stamp_latents: Path, tmp_path: Path) -> None:
    line = refuse("wm-export", "hardmaru", "--data", stamp_latents, "--out", tmp_path / "out", "--quiet")
    assert "its episodes make sequences of 20 to 23 rows, hardmaru holds one length; choose --pad (shorter ones are " in line
    line = refuse("wm-export", "adsp", "--data", stamp_latents, "--out", tmp_path / "out", "--pad", "--truncate")
    assert "--pad: is the opposite of --truncate; choose one" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["hardmaru", "zacwellmer", "adsp"])
@pytest.mark.parametrize("length", [1, 99_999_999_999_999])
def test_a_length_that_no_sequence_has(refuse: Refusal, stamp_latents: Path, tmp_path: Path, name: str, length: int) -> None:
    line = refuse("wm-export", name, "--data", stamp_latents, "--out", tmp_path / "out", "--pad", "--length", length)
    assert f"--length: expected 2 to 1000000, got {length}" in line
    assert list(tmp_path.iterdir()) == []


def test_an_export_into_a_directory_that_is_not_empty(refuse: Refusal, stamp_latents: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("42")
    line = refuse("wm-export", "npz", "--data", stamp_latents, "--out", tmp_path)
    assert "holds 'thesis.tex' already, and an export is never mixed with anything else; give a directory that is new" in line
    line = refuse("wm-export", "npz", "--data", stamp_latents, "--out", tmp_path / "thesis.tex")
    assert "thesis.tex: is a file; give a directory that is new or empty" in line
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_export_of_what_the_format_does_not_hold(
    refuse: Refusal, stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    line = refuse("wm-export", "hardmaru", "--data", stamp_rollouts, "--out", tmp_path / "out")
    assert "expected a dataset of worldmodel_v/latents (made by wm-encode), got worldmodel_v/rollouts" in line
    line = refuse("wm-export", "--quiet", "ctallec", "--data", stamp_latents, "--out", tmp_path / "out")
    assert "expected a dataset of worldmodel_v/rollouts (made by wm-collect), got worldmodel_v/latents" in line
    for format_, makers in (("npz", "wm-collect or wm-encode"), ("minari", "wm-collect"), ("adsp", "wm-encode")):
        line = refuse("wm-export", format_, "--data", tmp_path / "absent", "--out", tmp_path / "out-v0")
        assert f"is no directory; give a directory that {makers} wrote" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_export_of_what_is_no_vae(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    line = refuse("wm-export", "model", "--vae", tmp_path / "absent", "--data", stamp_rollouts, "--out", tmp_path / "out")
    assert "it is no directory of wm-train" in line
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_minari_does_not_know(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    line = refuse("wm-export", "minari", "--data", stamp_rollouts, "--out", tmp_path / "stamp")
    assert "--out: expected NAME-v0 or NAMESPACE/NAME-v0, as Minari calls its datasets, " in line
    assert line.endswith("got 'stamp'\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("csv", "--data", "x"), "unknown format 'csv'"),
        ((), "no format is named"),
        (("--quiet",), "no format is named"),
        (("--data", "npz", "--out", "x"), "no format is named"),
    ],
)
def test_a_format_that_is_unknown_or_missing(refuse: Refusal, words: tuple[str, ...], found: str) -> None:
    assert refuse("wm-export", *words) == (
        f"wm-export: {found}; expected one of {', '.join((*FORMATS, 'model', 'hub'))}, such as "
        "`wm-export npz --data DATASET --out DIRECTORY`\n"
    )


def test_the_format_stands_before_or_behind_the_options(refuse: Refusal, tmp_path: Path) -> None:
    for words in (
        ("npz", "--data", tmp_path / "absent", "--out", "x"),
        ("--data", tmp_path / "absent", "npz", "--out", "x"),
        ("--log-format", "text", "--quiet", "--data", tmp_path / "absent", "--out", "model", "npz"),
    ):
        assert "absent: is no directory" in refuse("wm-export", *words)


def test_the_help_of_wm_export_names_every_format_and_each_has_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config in FORMATS.items():
        monkeypatch.setattr(sys, "argv", ["wm-export", name, "--help"])
        with pytest.raises(SystemExit) as exit_:
            export.main()
        assert exit_.value.code == 0
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert text.startswith(f"usage: wm-export {name} ")
        assert " ".join((config.__doc__ or "").split("\n\n")[0].split()) in text
    monkeypatch.setattr(sys, "argv", ["wm-export", "--help"])
    with pytest.raises(SystemExit):
        export.main()
    text = capsys.readouterr().out.split("Whose format")[1]
    assert all(name in text for name in (*FORMATS, "model"))


def test_an_interrupted_export_says_that_it_begins_anew(refuse: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export", interrupted)
    line = refuse("wm-export", "npz", "--data", "x", "--out", "y", "--quiet", code=130)
    assert line == "wm-export: interrupted; nothing is left of it, and the same command begins anew\n"


def test_what_an_export_says_and_its_json(
    stamp_latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["wm-export", "hardmaru", "--data", str(stamp_latents), "--truncate", "--quiet", "--out"]
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "a")])
    export.main()
    shown = capsys.readouterr()
    assert shown.err == ""
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "b"), "--json"])
    export.main()
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["episodes"], report["rows"]) == ("hardmaru", 8, 160)
    assert "rows: row t: the latent of o_t, and the action a_t chosen on it\n" in shown.out
    assert all(f"- {note}\n" in shown.out for note in report["notes"])
    assert len(report["notes"]) > 5


# Inspecting


def test_inspecting_what_is_neither_dataset_nor_model(refuse: Refusal, tmp_path: Path) -> None:
    assert "neither dataset.json nor vae.safetensors is in it" in refuse("wm-inspect", tmp_path)
    assert "no such directory" in refuse("wm-inspect", tmp_path / "absent")


def test_a_file_where_its_directory_is_expected(
    refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path
) -> None:
    for file in (stamp_rollouts / "dataset.json", stamp_vae / "vae.safetensors"):
        assert f"{file}: is a file; give the directory that it lies in" in refuse("wm-inspect", file)
    line = refuse("wm-inspect", stamp_latents, "--vae", stamp_vae / "vae.safetensors")
    assert "vae.safetensors: is a file; give the directory that it lies in" in line


def test_latents_where_rollouts_are_expected(refuse: Refusal, stamp_latents: Path) -> None:
    line = refuse("wm-inspect", stamp_latents, "--data", stamp_latents)
    assert f"{stamp_latents}: expected a dataset of worldmodel_v/rollouts (made by wm-collect), got" in line


def test_verification_names_the_shard_that_is_off(stamp_rollouts: Path, tmp_path: Path, refuse: Refusal) -> None:
    data = tmp_path / "data"
    shutil.copytree(stamp_rollouts, data)
    shard = data / "shards" / "000002.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    line = refuse("wm-inspect", data, "--verify", "--quiet", code=1)
    assert "shards/000002.h5" in line


def test_a_preview_of_latents(refuse: Refusal, stamp_latents: Path, tmp_path: Path) -> None:
    assert "expected frames for a picture, got latents; give the rollouts that they were made from" in refuse(
        "wm-inspect", stamp_latents, "--preview", tmp_path / "out.png"
    )


def test_a_preview_in_place_of_anything_but_a_picture(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    data, link = shutil.copytree(stamp_rollouts, tmp_path / "data"), tmp_path / "link"
    link.symlink_to(data)
    (tmp_path / "thesis.png").write_text("42")
    before = files_in(tmp_path)
    assert "--preview: expected a name that ends in .png, got" in refuse("wm-inspect", data, "--preview", data / "dataset.json")
    for inside in (data / "preview", data / "new.png", data / "shards" / "new.png", link / "new.png"):
        line = refuse("wm-inspect", data, "--preview", inside)
        assert f"--preview {inside}: lies in {data}, which is only looked at; give a file outside of it" in line
    line = refuse("wm-inspect", data, "--preview", tmp_path)
    assert f"--preview {tmp_path}: is a directory; give a file, such as {tmp_path}/preview.png" in line
    line = refuse("wm-inspect", data, "--preview", tmp_path / "thesis.png")
    assert "thesis.png: is there and is no PNG, so it is not replaced; give a new file" in line
    assert files_in(tmp_path) == before


def test_a_preview_in_place_of_another(stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wm-inspect", str(stamp_rollouts), "--quiet", "--preview", str(tmp_path / "frames.png")])
    inspect.main()
    picture = (tmp_path / "frames.png").read_bytes()
    (tmp_path / "frames.png").write_bytes(picture + b"older")
    inspect.main()
    assert (tmp_path / "frames.png").read_bytes() == picture


def test_a_video_that_cannot_be_written(refuse: Refusal, stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.mp4").write_text("42 and more")
    refusals = {
        (stamp_rollouts, "a.avi"): "--video: expected a name that ends in .gif or .mp4, got",
        (stamp_rollouts, "thesis.mp4"): "is there and is no MP4, so it is not replaced; give a new file",
        (stamp_rollouts, "no/a.gif"): "its folder is not there; make it first",
        (stamp_latents, "a.gif"): "expected frames for a picture, got latents",
    }
    for (data, name), text in refusals.items():
        assert text in refuse("wm-inspect", data, "--video", tmp_path / name)
    refused = refuse("wm-inspect", stamp_rollouts, "--preview", tmp_path / "a.jpg")
    assert "--preview: expected a name that ends in .png, got" in refused
    assert "--episode: has no effect; give --video too" in refuse("wm-inspect", stamp_rollouts, "--episode", 3)
    assert "episode 8 is not there" in refuse("wm-inspect", stamp_rollouts, "--video", tmp_path / "a.gif", "--episode", 8)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.mp4"]


def test_a_video_of_an_episode(stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, and written again in its place: the frames of that episode."""
    words = ["wm-inspect", str(stamp_rollouts), "--quiet", "--video", str(tmp_path / "a.gif"), "--episode", "3"]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):
        inspect.main()
    pixels = open_dataset(stamp_rollouts).episode(3).pixels
    with Image.open(tmp_path / "a.gif") as gif:
        shown = np.stack([np.asarray(frame.convert("RGB"))[::4, ::4] for frame in ImageSequence.Iterator(gif)])
    assert shown.shape == pixels.shape
    assert np.abs(shown.astype(int) - pixels).max() <= 8  # of the palette


# Pipelines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("collect: {}\ntrain: {}\n", ":1: the stage 'encode' is missing"),
        ("collect:\n  episdoes: 3\ntrain: {}\nencode: {}\n", ":2: collect.episdoes: unknown field (did you mean 'episodes'?)"),
        ("collect:\n  episodes: many\ntrain: {}\nencode: {}\n", ":2: collect.episodes: expected a valid integer, got '"),
        (
            "collect:\n  max_steps: 0\ntrain: {}\nencode: {}\n",
            ":2: collect.max_steps: expected at least 1, got 0",
        ),
        ("collect: {}\ntrain:\n  out: x\nencode: {}\n", ":3: train.out: is set by --out; leave it out"),
        ("collect: {}\ntrian: {}\nencode: {}\n", ":2: unknown stage 'trian' (did you mean 'train'?)"),
        ("collect: {}\ntrain: [1, 2\nencode: {}\n", ":3: not valid YAML"),
        ("collect: {}\ntrain: {}\nencode: {}\nencode: {}\n", ":4: the file.encode: stands here twice"),
        (
            "collect:\n  episodes: yes\ntrain: {}\nencode: {}\n",
            ":2: collect.episodes: expected a valid integer, got '",
        ),
        ("collect: {}\ntrain:\n  beta: [1]\nencode: {}\n", ":3: train.beta: expected one value"),
        ("collect: {}\ntrain:\n  condition: action\nencode: {}\n", ":3: train.condition: expected a list: [a, b]"),
        (
            "collect: {}\ntrain:\n  condition: [3]\nencode: {}\n",
            ":3: train.condition: expected a valid string, got [3]",
        ),
        ("? [a]\n: 3\ntrain: {}\nencode: {}\n", ":1: the file: expected a name"),
        ("collect:\n  seed: 2024-13-45\ntrain: {}\nencode: {}\n", ":2: collect.seed: not a plain value"),
        (
            "collect:\n  seed: 010\ntrain: {}\nencode: {}\n",
            ":2: collect.seed: not a plain value (YAML reads 010 in base 8, or as text",
        ),
        (
            "collect:\n  env_kwargs: {n: 09}\ntrain: {}\nencode: {}\n",
            ":2: collect.env_kwargs: not a plain value (YAML reads 09",
        ),
        (
            "collect:\n  env_kwargs: {at: 1:30}\ntrain: {}\nencode: {}\n",
            ":2: collect.env_kwargs: not a plain value (YAML reads",
        ),
        ("[" * 5000, ":1: not valid YAML"),
        ("collect: {}\ntrain: 3\nencode: {}\n", ":2: train: expected fields (name: value), got '3'"),
        ("collect: !!python/object/apply:os.system [ls]\ntrain: {}\nencode: {}\n", ":1: collect: expected fields"),
        (
            "collect: {}\ntrain: {}\nencode:\n  workers: 0\n  address: auto\n",
            ":5: encode.address: auto: without workers nothing is done on a cluster",
        ),
        (
            "collect:\n  episodes: 4\ntrain:\n  holdout_every: 5\nencode: {}\n",
            ":4: train.holdout_every: 5: needs at least 5 episodes, collect.episodes is 4; collect more, or lower it",
        ),
        (
            "collect: {episodes: 9}\ntrain: {}\nencode: {}\n",
            ":2: train.holdout_every: 10: needs at least 10 episodes, collect.episodes is 9",
        ),
        ("", ":1: the file is empty"),
    ],
)
def test_a_broken_pipeline_file(refuse: Refusal, tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    line = refuse("wm-pipeline", "run", file, "--out", tmp_path / "out")
    assert f"{file}{expected}" in line
    assert not (tmp_path / "out").exists()


def test_a_pipeline_file_that_is_not_there(refuse: Refusal, tmp_path: Path) -> None:
    line = refuse("wm-pipeline", "run", tmp_path / "absent.yaml", "--out", tmp_path / "out")
    assert "absent.yaml: cannot be read (No such file or directory); give a pipeline file such as" in line


def test_a_pipeline_into_a_dataset_or_a_vae(refuse: Refusal, stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("collect: {}\ntrain: {}\nencode: {}\n")
    for out, name in ((stamp_rollouts, "dataset.json"), (stamp_vae, "vae.safetensors")):
        line = refuse("wm-pipeline", "run", tmp_path / "p.yaml", "--out", out)
        assert f"--out {out}: is the directory of a single stage (it holds {name}); give a new one, or that of a" in line
        assert not (out / "rollouts").exists()


def test_advice_on_settings_calls_them_as_in_the_file(refuse: Refusal, tmp_path: Path) -> None:
    file, out = tmp_path / "p.yaml", tmp_path / "out"
    text = "collect: {env: worldmodel_v/Stamp-v0, policy: random, episodes: 2, workers: 0, max_steps: 3}\nencode: {}\n"
    file.write_text(text + "train: {holdout_every: 2, device: teapot}\n")
    line = refuse("wm-pipeline", "run", file, "--out", out, "--quiet")
    assert ": train.device: teapot: cannot be used: " in line
    assert line.endswith("; try auto or cpu\n")
    (out / "vae").mkdir()
    (out / "vae" / "checkpoint.safetensors").write_bytes(b"damaged")
    file.write_text(text + "train: {holdout_every: 2, device: cpu}\n")
    line = refuse("wm-pipeline", "run", file, "--out", out, "--quiet")
    assert line.endswith("or train anew with train.resume: false\n")


def test_numbers_such_as_1e_3_are_numbers_lists_are_lists_and_evaluation_may_be_left_out(tmp_path: Path) -> None:
    from worldmodel_v.pipeline import load_pipeline

    (tmp_path / "p.yaml").write_text("collect: {}\ntrain:\n  learning_rate: 1e-3\n  condition: [action]\nencode: {}\n")
    pipeline = load_pipeline(tmp_path / "p.yaml", tmp_path)
    assert (pipeline.train.learning_rate, pipeline.train.condition, pipeline.eval) == (1e-3, ("action",), None)


# The command line itself


def test_a_closed_pipe_ends_a_command_quietly(stamp_rollouts: Path) -> None:
    wm_inspect = Path(sys.executable).parent / "wm-inspect"
    finished = subprocess.run(
        ["sh", "-c", f"{wm_inspect} {stamp_rollouts} | head -1"], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("rollouts ")
    assert [line for line in finished.stderr.splitlines() if ": at work, " not in line] == []  # on a busy machine it says so


def test_a_run_whose_events_nobody_reads_any_more_goes_on(tmp_path: Path) -> None:
    wm_collect, out = Path(sys.executable).parent / "wm-collect", tmp_path / "out"
    many = f"{wm_collect} --out {out} --env worldmodel_v/Stamp-v0 --workers 0 --episodes 40 --episodes-per-shard 1"
    finished = subprocess.run(
        ["sh", "-c", f"{{ {many} >{tmp_path}/result; echo $? >{tmp_path}/code; }} 2>&1 | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.count("\n") == 1
    assert (tmp_path / "code").read_text() == "0\n"
    assert "episodes" in (tmp_path / "result").read_text()
    assert open_dataset(out).num_episodes == 40


class Chatty(StampEnv):
    """An environment that prints."""

    def reset(self, **options: object) -> tuple[np.ndarray, dict]:
        print("hello")  # noqa: T201
        return super().reset(**options)  # type: ignore[arg-type]


class Leaving(StampEnv):
    """An environment that leaves Python in the middle of an episode."""

    def step(self, action: object) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.stamps[0] == 3:
            raise SystemExit(3)
        return super().step(action)


gymnasium.register("tests/Chatty-v0", entry_point=Chatty)
gymnasium.register("tests/Leaving-v0", entry_point=Leaving)


def test_json_is_all_that_goes_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--env", "tests/Chatty-v0", "--episodes", 1, "--workers", 0, "--policy", "random", "--json", "--quiet")
    monkeypatch.setattr(sys, "argv", ["wm-collect", "--out", str(tmp_path / "out"), *map(str, options)])
    collect.main()
    assert json.loads(capsys.readouterr().out)["episodes"] == 1


def test_an_environment_that_leaves_python_fails_its_episode_by_name(refuse: Refusal, tmp_path: Path) -> None:
    options = ("--env", "tests/Leaving-v0", "--episodes", 1, "--workers", 0, "--policy", "random", "--quiet")
    line = refuse("wm-collect", "--out", tmp_path / "out", *options, code=1)
    assert "episode 0 (seed" in line
    assert "SystemExit: 3" in line


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ('{"length": NaN}', "NaN is no JSON number"),
        ('{"length": 8, "length": 9}', "a name stands twice"),
        ('{"length": "x"}', "cannot begin an episode: TypeError"),
    ],
)
def test_arguments_that_break_the_environment(collect_refused: Callable[..., str], kwargs: str, expected: str) -> None:
    assert expected in collect_refused("--env-kwargs", kwargs, "--policy", "random")


def test_a_working_directory_that_was_removed(
    collect_refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the working directory has been removed; cd to another one" in collect_refused("--policy", "random")


def test_settings_under_which_nothing_was_committed_lock_nothing_in(tmp_path: Path, refuse: Refusal) -> None:
    out = tmp_path / "out"
    options = ("--episodes", 1, "--workers", 0, "--policy", "random", "--quiet")
    refuse("wm-collect", "--out", out, "--env", "tests/Leaving-v0", *options, code=1)
    from tests.conftest import stamp_config
    from worldmodel_v.collection import collect as run_collect

    assert run_collect(stamp_config(out, episodes=2)).episodes == 2


def test_verify_and_preview_are_not_for_models(refuse: Refusal, stamp_vae: Path, tmp_path: Path) -> None:
    assert "expected a dataset to verify, got a VAE" in refuse("wm-inspect", stamp_vae, "--verify")
    assert "got a VAE" in refuse("wm-inspect", stamp_vae, "--preview", tmp_path / "x.png")


def test_a_preview_into_a_folder_that_is_not_there(refuse: Refusal, stamp_rollouts: Path, tmp_path: Path) -> None:
    assert "its folder is not there" in refuse("wm-inspect", stamp_rollouts, "--preview", tmp_path / "no" / "x.png")


REQUIRED = {
    "wm-collect": "--out x",
    "wm-train": "--data x --out x",
    "wm-encode": "--data x --vae x --out x",
    "wm-eval": "--data x --vae x --out x",
    "wm-view": "--data x --vae x --out x.html",
    "wm-select": "--data a --out b",
    "wm-export": "npz --data x --out y",
    "wm-import": "npz --from x --out y",
    "wm-inspect": "x",
    "wm-pipeline": "run x --out x",
}


@pytest.mark.parametrize("program", MAINS)
def test_an_empty_argument_is_no_directory(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse, words = Refusal(monkeypatch, capsys), REQUIRED[program].split()[:-1]
    where = f" after {words[-1]}" if words else ""
    expected = f"{program}: an empty argument{where}, as of an unset shell variable; give a value (. is the directory here)\n"
    assert refuse(program, *words, "") == expected
    if words:
        assert f"an empty argument after {words[-1]}=, as of" in refuse(program, *words[:-1], f"{words[-1]}=")


@pytest.mark.parametrize(
    ("program", "words", "option"),
    [
        ("wm-train", ("--data", "a", "--out", "b", "--data", "c"), "--data"),
        ("wm-export", ("npz", "--data", "a", "--out", "b", "--data", "c"), "--data"),
        ("wm-encode", ("--data=a", "--data", "c", "--vae", "v", "--out", "b"), "--data"),
        ("wm-collect", ("--out", "b", "--frame-size", "64", "--frame_size=32"), "--frame-size"),
        ("wm-train", ("--data", "a", "--out", "b", "--condition", "action", "--condition", "velocity_x"), "--condition"),
        ("wm-export", ("npz", "--data", "a", "--out", "b", "--out", "c"), "--out"),
        ("wm-select", ("--data", "a", "--data", "b", "--out", "c"), "--data"),
        ("wm-view", ("--data", "a", "--data", "b", "--vae", "v", "--out", "c.html"), "--data"),
        ("wm-inspect", ("latents", "--data", "a", "--data", "b"), "--data"),
    ],
)
def test_an_option_that_is_given_twice(
    program: str,
    words: tuple[str, ...],
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of which a parser would silently take the last."""
    refuse = Refusal(monkeypatch, capsys)
    one, more = "; wm-select makes one dataset of several", ", with all datasets after it: --data A B"
    several = "" if option != "--data" else one if program == "wm-export" else more
    assert refuse(program, *words) == f"{program}: {option}: is given 2 times; give it once{several}\n"


@pytest.mark.parametrize("program", MAINS)
def test_an_unknown_option_leaves_with_2(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, *REQUIRED[program].split(), "--no-such-option", "1"])
    with pytest.raises(SystemExit) as exit_:
        MAINS[program]()
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert "no-such-option" in printed.err + printed.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--out x --episodes three", "Error parsing --episodes: expected a whole number, got 'three'"),
        ("--out x --max-steps abc", "Error parsing --max-steps: expected a whole number, got 'abc'"),
        ("--out x --resize nearest", "invalid choice 'nearest' for argument '--resize'"),
        ("--out x --episods 3", "Unrecognized options: --episods, 3"),
        ("--episodes 3", "Missing from wm-collect: --out PATH"),
    ],
)
def test_what_the_parser_refuses_is_said_to_people_and_to_programs(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["wm-collect", *words.split(), *more])
        with pytest.raises(SystemExit) as exit_:
            collect.main()
        assert exit_.value.code == 2
        return capsys.readouterr()

    out, box = refused()
    assert out == ""
    assert box.count("\n") > 2
    assert said in " ".join(box.replace("│", " ").split())
    out, line = refused("--json")
    parts = json.loads(out)
    assert (parts["event"], parts["exit_code"]) == ("failed", 2)
    assert parts["message"].startswith(said)
    assert "helptext" not in parts["message"]
    assert line == f"wm-collect: {parts['message']}\n"
    out, line = refused("--log-format", "json")
    assert (out, json.loads(line)["message"]) == ("", parts["message"])


def test_a_format_that_is_not_named_is_said_to_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wm-export", "--json"])
    with pytest.raises(SystemExit):
        export.main()
    assert json.loads(capsys.readouterr().out)["message"].startswith("no format is named; expected one of")


@pytest.mark.parametrize("program", MAINS)
def test_help_says_what_the_command_does_and_every_option(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    with pytest.raises(SystemExit) as exit_:
        MAINS[program]()
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--quiet" in text
