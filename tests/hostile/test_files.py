"""Descriptions, indices, links and pipeline files that a stranger made."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.hostile.datasets import put_dataset, rollout_spec, sound_shard
from tests.hostile.limits import VERIFY, run_limited
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.errors import (
    ConfigError,
    DatasetNotUsable,
    ModelNotUsable,
    NotAFile,
    PolicyNotUsable,
    ShardDamaged,
)
from worldmodel_v.pipeline import load_pipeline
from worldmodel_v.policies import parse_policy, policy_weights
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.untrusted import canonical_json

OPEN = "from pathlib import Path\nfrom worldmodel_v.storage import open_dataset\nopen_dataset(Path(sys.argv[1]))"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A sound dataset, to be made hostile."""
    return put_dataset(tmp_path / "data", sound_shard(rollout_spec()), rollout_spec())


# Links


@pytest.mark.parametrize("name", ["dataset.json", "index.jsonl", "shards"])
def test_a_link_in_the_place_of_a_part_of_the_dataset_is_refused(dataset: Path, tmp_path: Path, name: str) -> None:
    shutil.move(dataset / name, tmp_path / "elsewhere")
    (dataset / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((NotAFile, ShardDamaged)) as caught:
        open_dataset(dataset).episode(0)
    kind = "folder" if name == "shards" else "file"
    assert str(caught.value) == f"{dataset / name}: is a symbolic link; expected the {kind} itself; put it in its place"


def test_a_link_in_the_place_of_a_shard_is_refused(dataset: Path, tmp_path: Path) -> None:
    shard = dataset / "shards/000000.h5"
    shutil.move(shard, tmp_path / "elsewhere.h5")
    shard.symlink_to(tmp_path / "elsewhere.h5")
    text = f"{shard}: is a symbolic link; expected the file itself; put it in its place"
    assert verify(open_dataset(dataset)) == [text]
    with pytest.raises(ShardDamaged, match="is a symbolic link"):
        open_dataset(dataset).episode(0)


def test_the_dataset_itself_may_be_reached_by_a_link(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dataset)
    assert verify(open_dataset(tmp_path / "link")) == []


@pytest.mark.parametrize("name", ["dataset.json", "shards/000000.h5"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(dataset: Path, name: str) -> None:
    (dataset / name).unlink()
    os.mkfifo(dataset / name)
    with pytest.raises((NotAFile, ShardDamaged), match=f"{name}: is a pipe; expected the file itself; put it in its place"):
        open_dataset(dataset).episode(0)


@pytest.mark.parametrize("shard", ["../../../etc/passwd", "/etc/passwd", "0/../../x", ["0"], {"path": "x"}, 1.0, None, "0"])
def test_a_shards_name_is_a_number_and_no_path(dataset: Path, shard: object) -> None:
    line = json.loads((dataset / "index.jsonl").read_text()) | {"shard": shard}
    (dataset / "index.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ShardDamaged, match="shard must be a whole number from 0"):
        open_dataset(dataset)


# dataset.json


def described(**changes: object) -> bytes:
    """A description with other settings, whose hash is right."""
    spec = rollout_spec(**changes)
    try:
        return json.dumps(spec.to_json()).encode()
    except ValueError:  # NaN has no hash
        return json.dumps({**rollout_spec().to_json(), "spec": spec.settings()}).encode()


DESCRIPTIONS = {
    "deeply nested": (b"[" * 500_000, "nested too deeply"),
    "deeply nested objects": (b'{"a":' * 100_000, "nested too deeply"),
    "oversized": (b" " * (1 << 20) + described(), "it has 10"),
    "a name that stands twice": (b'{"format": "x", ' + described()[1:], "a name stands twice"),
    "a huge number": (described().replace(b'"seed": 7', b'"seed": ' + b"7" * 100_000), "a whole number of 100000 digits"),
    "NaN": (described(env_kwargs={"x": float("nan")}), "not JSON compliant"),
    "infinity": (described(env_kwargs={"x": float("inf")}), "not JSON compliant"),
    "a list": (b"[]", "expected an object (name: value), found list"),
    "settings that are a list": (
        b'{"format": "worldmodel_v/rollouts", "format_version": 1, "spec": [], "spec_hash": ""}',
        "spec: ",
    ),
    "a number as environment": (described(env=5), "env: expected str, found int"),
    "a text as size": (described(frame_height="8"), "frame_height: expected int, found str"),
    "a truth value as seed": (described(seed=True), "seed: expected int, found bool"),
    "a list as arguments": (described(env_kwargs=[]), "env_kwargs: expected "),
    "other settings than the hash says": (described().replace(b'"seed": 7', b'"seed": 8'), "spec_hash is "),
    "a version that is almost right": (
        described().replace(b'"format_version": 1', b'"format_version": 1.0'),
        "format_version 1.0",
    ),
    "a format that is no text": (described().replace(b'"worldmodel_v/rollouts"', b"[]"), "unhashable"),
    "a name that a terminal obeys": (described().replace(b'"env"', b'"\\u001b[2Jenv"'), "not printable"),
    "half a character": (described() + b"\xc3", "utf-8"),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_description_that_is_none_is_refused_by_name(dataset: Path, what: str) -> None:
    content, reason = DESCRIPTIONS[what]
    (dataset / "dataset.json").write_bytes(content)
    with pytest.raises(DatasetNotUsable) as caught:
        open_dataset(dataset)
    message = str(caught.value)
    assert message.startswith(f"{dataset / 'dataset.json'}: not a valid description of a dataset (")
    assert reason in message
    assert message.endswith("; restore it from a copy")
    assert len(message) < 600
    assert "\n" not in message


def test_files_of_gigabytes_are_refused_without_being_read(dataset: Path) -> None:
    for name in ("dataset.json", "index.jsonl"):
        whole = (dataset / name).read_bytes()
        with (dataset / name).open("r+b") as file:
            file.truncate(1 << 40)
        done = run_limited(OPEN, dataset, memory_bytes=1 << 30)
        assert f"{dataset / name}" in done.lines[-1]
        assert done.peak_mib < 150
        (dataset / name).write_bytes(whole)


@pytest.mark.parametrize(
    "changes", [{"first_episode": 2**53 - 3}, {"num_episodes": 2**40}, {"num_rows": 2**50}, {"shard": 10**9}]
)
def test_numbers_of_an_index_that_no_shard_backs_take_no_memory(tmp_path: Path, changes: dict[str, int]) -> None:
    path = put_dataset(tmp_path / "data", sound_shard(rollout_spec()), rollout_spec(), **changes)
    done = run_limited(VERIFY, path, memory_bytes=1 << 30)
    assert f"{path / 'shards'}/" in done.lines[-1]
    assert done.peak_mib < 150


def test_a_description_is_its_hash(dataset: Path) -> None:
    assert canonical_json(open_dataset(dataset).spec.settings()) == canonical_json(rollout_spec().settings())


# Pipeline files


STAGES = "collect: {}\ntrain: {}\nencode: {}\n"
LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{after}: &{after} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
    for before, after in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)
PIPELINES = {
    "a billion laughs": (LAUGHS + STAGES, ":2: not valid YAML: aliases are not taken: write the value out"),
    "laughs in a list": ("train:\n  condition: [&a [x], *a]\ncollect: {}\nencode: {}\n", ":2: not valid YAML: aliases are not"),
    "an alias of itself": ("collect: &a [*a]\ntrain: {}\nencode: {}\n", ":1: not valid YAML: aliases are not taken"),
    "a tag that runs a command": (
        STAGES.replace("collect: {}", "collect: !!python/object/apply:os.system {}"),
        ":1: collect: expected plain",
    ),
    "a value that runs a command": (
        STAGES.replace("collect: {}", "collect:\n  seed: !!python/object/apply:os.getpid []"),
        ":2: collect.seed: expected one value",
    ),
    "a name that runs a command": (
        STAGES.replace("collect: {}", "collect:\n  seed: !!python/name:os.system x"),
        ":2: collect.seed: not a plain value (could not determine a constructor",
    ),
    "a number of many digits": (
        STAGES.replace("collect: {}", "collect:\n  seed: 0x" + "f" * 20_000),
        ":2: collect.seed: not a plain",
    ),
    "a number in base 60": (
        STAGES.replace("collect: {}", "collect:\n  seed: 1" + ":1" * 20_000),
        ":2: collect.seed: not a plain",
    ),
    "NaN": (STAGES.replace("train: {}", "train:\n  learning_rate: .nan"), ":3: train.learning_rate: not a plain value (nan"),
    "infinity": (
        STAGES.replace("train: {}", "train:\n  learning_rate: .inf"),
        ":3: train.learning_rate: not a plain value (inf",
    ),
    "an empty number": (STAGES.replace("collect: {}", 'collect:\n  seed: !!int ""'), ":2: collect.seed: not a plain value"),
    "no time": (STAGES.replace("collect: {}", "collect:\n  seed: !!timestamp x"), ":2: collect.seed: not a plain value"),
    "deeply nested": ("{a: " * 3000, ":1: not valid YAML"),
    "a list in lists": ("- " * 600, ":1: not valid YAML: nested too deeply"),
    "a list in lists as a value": (
        STAGES.replace("train: {}", "train:\n  condition: " + 8 * "[" + 8 * "]"),
        ":3: train.condition: expected",
    ),
    "oversized": ("#" + "x" * (1 << 16) + "\n" + STAGES, ":1: has more than 65536 bytes"),
    "a name of many lines": ('"a\\nb": {}\n' + STAGES, ":1: the file: expected a name"),
    "not UTF-8": (b"\xff\xfe" + STAGES.encode(), ": cannot be read"),
}


@pytest.mark.parametrize("what", PIPELINES)
def test_a_pipeline_file_that_is_more_than_plain_values_is_refused_by_line(tmp_path: Path, what: str) -> None:
    content, expected = PIPELINES[what]
    file = tmp_path / "pipeline.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file, tmp_path / "out")
    assert str(caught.value).startswith(f"{file}{expected}")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_pipeline_file_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_bytes(b"#" * (1 << 17))
    with pytest.raises(ConfigError, match=r"long\.yaml:1: has more than 65536 bytes"):
        load_pipeline(tmp_path / "long.yaml", tmp_path / "out")


@pytest.fixture(params=["device", "link", "pipe"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What could be read until memory ends, or waited for: a device, a link to one, a pipe."""
    place = tmp_path / "place"
    if request.param == "link":
        place.symlink_to("/dev/zero")
    elif request.param == "pipe":
        os.mkfifo(place)
    return Path("/dev/zero") if request.param == "device" else place


def test_a_pipeline_file_is_a_regular_file(endless: Path) -> None:
    with pytest.raises(ConfigError, match=f"{endless}: is no regular file; give a pipeline file such as"):
        load_pipeline(endless, Path("out"))


# Policies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("driver(" * 1000, "at most 10 policies inside each other"),
        ("(" * 9000, "expected the name of a policy at character 1"),
        ("x" * 10_001, "has 10001 characters, expected at most 10000"),
        ("driver(speed=1e999)", "expected a number for speed that is finite at character 14"),
        ("mixture(1e999*driver)", "expected a weight that is finite at character 9"),
        ("driver(speed=1, speed=2)", "expected speed only once"),
        ("driver(speed=" + 5000 * "9" + ")", "that is finite"),
    ],
)
def test_a_policys_line_without_measure_is_refused(text: str, expected: str) -> None:
    with pytest.raises(PolicyNotUsable) as caught:
        parse_policy(text)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("prefix", ["checkpoint:module:factory:", "onnx:", "sb3:"])
def test_weights_of_a_policy_are_a_regular_file(prefix: str, endless: Path) -> None:
    with pytest.raises(PolicyNotUsable, match=f"{endless} is no regular file; give the path of a"):
        policy_weights(f"{prefix}{endless}")


def test_a_dataset_and_a_vae_are_directories(endless: Path) -> None:
    with pytest.raises(DatasetNotUsable, match="is no directory"):
        open_dataset(endless)
    with pytest.raises(ModelNotUsable, match="is no directory"):
        load_vae(endless)
