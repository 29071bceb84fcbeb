"""The package from Python: what a type checker sees, paths as strings, settings as dictionaries."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import stamp_config
from worldmodel_v import CollectConfig, EncodeConfig, EvalConfig, SelectConfig, TrainConfig, collect, open_dataset
from worldmodel_v.errors import ConfigError
from worldmodel_v.export.hub import HubConfig
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.pipeline import load_pipeline

ROOT = Path(__file__).parents[1]

USE = """
from pathlib import Path
from worldmodel_v import *
from worldmodel_v.export import export
from worldmodel_v.export.hub import HubConfig, export_hub
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.spec import LatentSpec
rollouts = collect(CollectConfig(out="rollouts", env_kwargs={"length": 3}))
reveal_type(rollouts)
reveal_type(train(TrainConfig(data="rollouts", out="vae")))
reveal_type(encode(EncodeConfig(data="rollouts", vae="vae", out="latents")))
reveal_type(evaluate(EvalConfig(data="rollouts", vae="vae", out="eval")))
reveal_type(open_dataset("rollouts"))
reveal_type(open_dataset("latents", LatentSpec).spec)
reveal_type(open_dataset("rollouts").episode(0))
reveal_type(open_dataset("rollouts")[0])
for episode in open_dataset("rollouts"):
    reveal_type(episode)
reveal_type(select(SelectConfig(data=("rollouts", Path("more")), out="some")))
reveal_type(export(NpzConfig(data="rollouts", out="npz")))
reveal_type(export_hub(HubConfig(vae="vae", repo="me/vae", out="hub")))
reveal_type(LatentSequences("latents", length=32)[0])
reveal_type(Encoder.load("vae"))
reveal_type(load_vae("vae").model)
reveal_type(rollouts.out)
reveal_type(EncodeConfig(data="rollouts", vae="vae", out="latents").vae)
"""

SEEN = [
    *("CollectReport", "TrainReport", "EncodeReport", "EvaluationReport"),
    *(
        "Dataset[worldmodel_v.spec.Spec]",
        "LatentSpec",
        "Episode",
        "Episode",
        "Episode",
        "SelectReport",
        "ExportReport",
        "HubReport",
    ),
    *("dict[str, torch._tensor.Tensor]", "Encoder", "GaussianAutoencoder", "Path", "Path"),
]


@pytest.mark.slow
def test_a_type_checker_sees_every_public_name(tmp_path: Path) -> None:
    file = tmp_path / "use.py"
    file.write_text(USE)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(file)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stdout
    seen = [line.split('"')[1] for line in told.stdout.splitlines() if "Revealed type" in line]
    assert [name.endswith(end) for name, end in zip(seen, SEEN, strict=True)] == [True] * len(SEEN), seen


def test_paths_are_strings_or_paths(tmp_path: Path) -> None:
    for given in (str(tmp_path / "a"), tmp_path / "a"):
        assert CollectConfig(out=given).out == tmp_path / "a"
        assert TrainConfig(data=given, out=given).out == tmp_path / "a"
        assert (
            SelectConfig(data=(given,), out=tmp_path / "b").data == SelectConfig(data=given, out="b").data == (tmp_path / "a",)
        )
        for share in ({"data": given}, {"vae": given}):
            hub = HubConfig(**share, repo="me/a", out=str(tmp_path / "b"))
            assert (hub.data or hub.vae, hub.out) == (tmp_path / "a", tmp_path / "b")
        exported = NpzConfig(data=given, out=str(tmp_path / "b"))
        assert (exported.data, exported.out) == (tmp_path / "a", tmp_path / "b")
        for config in (EncodeConfig(data=given, vae=given, out=given), EvalConfig(data=given, vae=given, out=given)):
            assert (config.vae, config.out) == (tmp_path / "a", tmp_path / "a")


def test_a_path_has_no_default_and_is_no_url() -> None:
    with pytest.raises(TypeError, match="out"):
        CollectConfig()
    with pytest.raises(ConfigError, match=r"out='s3://bucket/a': is a URL, and only data may be one"):
        CollectConfig(out="s3://bucket/a")


def test_a_dictionary_is_recorded_as_its_json_is(tmp_path: Path) -> None:
    given = {"size": 8, "length": 4}
    collect(stamp_config(tmp_path / "dictionary", env_kwargs=given, episodes=1))
    collect(stamp_config(tmp_path / "text", env_kwargs='{"size": 8, "length": 4}', episodes=1))
    recorded = [(tmp_path / name / "dataset.json").read_bytes() for name in ("dictionary", "text")]
    assert recorded[0] == recorded[1]
    assert open_dataset(tmp_path / "text").spec.all_settings()["env_kwargs"] == given


def test_a_config_keeps_a_dictionary_of_its_own(tmp_path: Path) -> None:
    given = {"levels": (1, 2)}
    config = CollectConfig(out=tmp_path, reset_options=given)
    given["levels"] = (3,)
    assert config.reset_options == {"levels": [1, 2]}


@pytest.mark.parametrize(
    "given",
    [{1: 2}, {"a": {1: 2}}, {"a": [{1: 2}]}, {"a": float("nan")}, {"a": object}, 7, [], '["a"]', "{", {"a": 10**30}],
    ids=repr,
)
def test_what_json_cannot_hold_is_refused(tmp_path: Path, given: object) -> None:
    with pytest.raises(ConfigError, match=r"^env_kwargs=.*: is not JSON such as '\{\"continuous\": false\}': "):
        CollectConfig(out=tmp_path, env_kwargs=given)


def loaded(folder: Path, text: str) -> dict:
    file = folder / "pipeline.yaml"
    file.write_text(f"collect: {{env_kwargs: {text}}}\ntrain: {{}}\nencode: {{}}\n")
    return load_pipeline(str(file), str(folder / "out")).collect.env_kwargs


@pytest.mark.parametrize("text", ["{length: 5, of: [1, {a: b}]}", """'{"length": 5, "of": [1, {"a": "b"}]}'"""])
def test_a_pipeline_file_has_a_mapping_or_json(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text) == {"length": 5, "of": [1, {"a": "b"}]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "collect.env_kwargs: expected a mapping: {name: value}"),
        ("5", "collect.env_kwargs: expected a mapping: {name: value}, got '5'"),
        ("{a: {b: 1, b: 2}}", "collect.env_kwargs.b: stands here twice"),
        ("{a: 2020-01-01}", "Object of type date is not JSON serializable"),
        ("{a: .nan}", "NaN is no JSON number"),
        ("{a: !!python/object:x {}}", "expected plain fields, got the tag"),
        ("""'["a"]'""", "expected an object"),
    ],
)
def test_other_values_in_a_pipeline_file_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert f"{tmp_path / 'pipeline.yaml'}:1: " in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.parametrize("stage", ["collect", "train", "encode", "evaluate"])
@pytest.mark.parametrize("module_first", [True, False])
def test_a_stage_is_the_same_function_however_it_is_imported(stage: str, module_first: bool) -> None:
    config = {"evaluate": "EvalConfig"}.get(stage, f"{stage.title()}Config")
    lines = [
        f"from worldmodel_v.{stage} import {config} as first, {stage} as function",
        f"from worldmodel_v import {stage}, {config}",
    ]
    ended = [
        f"import worldmodel_v.{stage} as module",
        f"assert function is {stage} is module is worldmodel_v.{stage}",
        f"assert first is {config}",
    ]
    code = "\n".join(
        ["import worldmodel_v", *(lines if module_first else reversed(lines)), *ended, f"assert callable({stage})"]
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
