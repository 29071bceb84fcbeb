"""Exported models: they compute what the original does, without this package; what does not is not written."""

import builtins
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch

from tests.builders import files_in
from tests.evaluation.conftest import write_rollouts, write_vae
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.cli.tables import print_model_export
from worldmodel_v.encoding import encode_frames
from worldmodel_v.errors import (
    ConfigError,
    DatasetNotUsable,
    ModelFailed,
    ModelNotUsable,
    OutputNotUsable,
    PackageMissing,
)
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.export import formats
from worldmodel_v.export import model as stage
from worldmodel_v.export.formats import FormatName, run_onnx
from worldmodel_v.export.model import ModelExportConfig, ModelExportReport, export_model

ALL_FILES = {
    *("encoder.pt", "decoder.pt", "encoder.pt2", "decoder.pt2", "encoder.onnx", "decoder.onnx", "encoder.int8.onnx"),
    "model.json",
}

CONSUMER = """
import json, sys, warnings
sys.modules["worldmodel_v"] = None
import numpy as np
folder, source, target = sys.argv[1:]
model = json.load(open(f"{folder}/model.json"))
given, found = dict(np.load(source)), {}
for name, file in model["files"].items():
    path, inputs, outputs = f"{folder}/{name}", model[file["part"]]["inputs"], model[file["part"]]["outputs"]
    arguments = [given[tensor["name"]] for tensor in inputs]
    if name.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [(i["name"], i["shape"]) for i in inputs]
        assert [tensor.name for tensor in session.get_outputs()] == [tensor["name"] for tensor in outputs]
        results = session.run(None, {tensor["name"]: array for tensor, array in zip(inputs, arguments, strict=True)})
    else:
        import torch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(path) if name.endswith(".pt") else torch.export.load(path).module()
        results = module(*map(torch.from_numpy, arguments))
        results = [result.numpy() for result in (results if isinstance(results, tuple) else (results,))]
    for promised, result in zip(outputs, results, strict=True):
        assert (str(result.dtype), list(result.shape[1:])) == (promised["dtype"], promised["shape"][1:]), (name, promised)
        found[f"{name} {promised['name']}"] = result
assert not [name for name in sys.modules if name.startswith("worldmodel_v.")]
np.savez(target, **found)
"""


class World(NamedTuple):
    """Rollouts, a VAE, and its export in every format."""

    data: Path
    vae: Path
    out: Path
    report: ModelExportReport


def lively(config: VAEConfig) -> VAE:
    """A VAE with random weights whose latents and pictures vary with the frame."""
    torch.manual_seed(1)
    model = VAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else parameter)
        if config.condition:
            model.condition_mean.fill_(0.3)
            model.condition_std.fill_(0.7)
    return model


VAES = {
    "resnet": VAEConfig(architecture="resnet", frame_height=16, frame_width=16, latent_dim=4, likelihood="calibrated"),
    "resnet-wide": VAEConfig(architecture="resnet", frame_height=16, frame_width=40, latent_dim=4),
    "conv-odd": VAEConfig(architecture="conv", frame_height=88, frame_width=24, latent_dim=4),
    "conv-grey": VAEConfig(architecture="conv", frame_height=16, frame_width=16, latent_dim=4, channels=1),
    "mlp-conditional": VAEConfig(
        architecture="mlp", frame_height=8, frame_width=8, latent_dim=3, condition=("factor_0", "action"), condition_dim=3
    ),
    "ha2018-grey-conditional": VAEConfig(
        architecture="ha2018",
        frame_height=64,
        frame_width=64,
        latent_dim=5,
        channels=1,
        condition=("factor_1",),
        condition_dim=1,
    ),
}


def make_world(folder: Path, config: VAEConfig) -> tuple[Path, Path]:
    spec = {"frame_height": config.frame_height, "frame_width": config.frame_width}
    data = write_rollouts(folder / "rollouts", spec=spec, size=config.frame_shape, num_steps=40, num_factors=2)
    return data, write_vae(folder / "vae", data, model=lively(config))


@pytest.fixture(scope="module", params=VAES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp(request.param)
    data, vae = make_world(folder, VAES[request.param])
    out = folder / "model"
    return World(data, vae, out, export_model(ModelExportConfig(vae=vae, data=data, out=out)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rollouts and a VAE that is quick to export."""
    return make_world(tmp_path_factory.mktemp("small"), VAES["mlp-conditional"])


def test_every_file_computes_the_same_without_this_package(world: World, tmp_path: Path) -> None:
    model = load_vae(world.vae).model
    config, rng = model.config, np.random.default_rng(3)
    given = {
        "frames": rng.integers(0, 256, (5, *config.frame_shape, 3), dtype=np.uint8),
        "z": rng.normal(size=(5, config.latent_dim)).astype(np.float32),
        "condition": rng.normal(size=(5, config.condition_dim)).astype(np.float32),
    }
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-W", "error", "-c", CONSUMER, world.out, tmp_path / "given.npz", tmp_path / "found.npz"]
    finished = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found = dict(np.load(tmp_path / "found.npz"))

    condition = given["condition"] if config.condition else None
    posterior = encode_frames(model, given["frames"], torch.device("cpu"), condition_BK=condition)
    told = None if condition is None else torch.from_numpy(condition)
    with torch.no_grad():
        frames = to_frames(model.decode_z(torch.from_numpy(given["z"]), told))
    assert {name.split()[0] for name in found} == ALL_FILES - {"model.json"}
    for suffix in ("pt", "pt2", "onnx"):
        for name, expected in posterior.items():
            np.testing.assert_allclose(found[f"encoder.{suffix} {name}"], expected.numpy(), atol=1e-4, err_msg=suffix)
        assert np.abs(found[f"decoder.{suffix} frames"].astype(int) - frames).max() <= 1
    error, spread = found["encoder.int8.onnx mu"] - posterior["mu"].numpy(), posterior["mu"].numpy().std()
    assert 0 < np.sqrt(np.square(error).mean()) < 0.2 * spread
    assert np.ptp(frames.astype(int), axis=0).max() > 20


def test_the_record_says_what_the_files_are_and_what_they_are_made_for(world: World) -> None:
    content = json.loads((world.out / "model.json").read_text())
    model = load_vae(world.vae)
    config = model.model.config
    assert {file.name for file in world.out.iterdir()} == ALL_FILES
    assert (content["format"], content["format_version"]) == ("worldmodel_v/model", 1)
    assert content["vae_sha256"] == world.report.vae_sha256 == model.sha256
    assert content["model"]["latent_dim"] == config.latent_dim
    made = {"crop": "full", "resize": "area", "fit": "stretch"}
    assert content["frames"].items() >= {**made, "frame_height": config.frame_height, "frame_width": config.frame_width}.items()
    assert content["checked_on"]["frames"] == world.report.checked_frames == 82
    assert content["checked_on"]["holdout_every"] == 2
    assert set(content["versions"]) == {"worldmodel_v", "torch", "onnx", "onnxscript", "onnxruntime"}
    for file in world.report.files:
        path, recorded = world.out / file.name, content["files"][file.name]
        assert recorded["sha256"] == file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert recorded["bytes"] == file.bytes == path.stat().st_size
        assert recorded["difference"] == file.difference
    assert set(content["files"]) == ALL_FILES - {"model.json"}
    assert str(world.data) not in (world.out / "model.json").read_text()


def test_the_differences_are_those_on_held_out_frames(world: World) -> None:
    files = {file.name: file for file in world.report.files}
    inputs = stage._encoder_inputs(stage.require_dataset(world.data, stage.RolloutSpec), load_vae(world.vae), _second, 512)
    posterior = encode_frames(
        load_vae(world.vae).model, inputs[0], torch.device("cpu"), condition_BK=inputs[1] if len(inputs) > 1 else None
    )
    mu, logvar = run_onnx(world.out / "encoder.int8.onnx")(*inputs)
    error = np.abs(mu - posterior["mu"].numpy())
    found = files["encoder.int8.onnx"].difference
    assert found["max_mu"] == pytest.approx(error.max(), rel=1e-3)
    assert found["mean_mu_in_sigma"] == pytest.approx((error / np.exp(posterior["logvar"].numpy() / 2)).mean(), rel=1e-3)
    assert found["max_logvar"] == pytest.approx(np.abs(logvar - posterior["logvar"].numpy()).max(), rel=1e-3)
    assert files["encoder.onnx"].difference["mean_mu_in_sigma"] < 1e-4 < found["mean_mu_in_sigma"]
    assert files["decoder.onnx"].difference["max_levels"] <= 1


def _second(episode: int) -> bool:
    return episode % 2 == 1


def test_every_difference_is_printed(small: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, vae = small
    report = export_model(ModelExportConfig(vae=vae, data=data, out=tmp_path / "m", formats=("torch.export", "int8")))
    print_model_export(report)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path / 'm'}  compared with the original on 82 held-out frames:"
    numbers = r"\d[\d.e-]*"
    encoder = rf"mu differs by at most {numbers}, mean {numbers} sigma \({numbers}% of its spread\)"
    assert [re.sub(rf"^- (\S+): {encoder}$", r"\1", line) for line in (lines[0], lines[2])] == [
        "encoder.pt2",
        "encoder.int8.onnx",
    ]
    assert lines[1] == "- decoder.pt2: pixels differ by at most 0 of 255 levels, mean 0"


@pytest.mark.parametrize("name", get_args(FormatName))
def test_one_format_alone(small: tuple[Path, Path], tmp_path: Path, name: FormatName) -> None:
    data, vae = small
    export_model(ModelExportConfig(vae=vae, data=data, out=tmp_path / "model", formats=(name,)))
    expected = {part + formats.SUFFIXES[name] for part in (("encoder",) if name == "int8" else ("encoder", "decoder"))}
    assert set(files_in(tmp_path)) == {f"model/{file}" for file in (*expected, "model.json")}


# What is refused


@pytest.fixture
def refused(small: tuple[Path, Path], tmp_path: Path) -> Callable[..., str]:
    """Exports what must be refused, and gives the message; nothing may be written."""
    data, vae = small

    def run(error: type[Exception], **changes: object) -> str:
        before = files_in(tmp_path)
        settings = {"vae": vae, "data": data, "out": tmp_path / "out", "formats": ("torch.export",)}
        with pytest.raises(error) as caught:
            export_model(ModelExportConfig(**{**settings, **changes}))
        assert files_in(tmp_path) == before
        assert not any(path.name.startswith(".tmp-") for path in tmp_path.rglob("*"))
        return str(caught.value)

    return run


def test_a_directory_without_weights(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    assert refused(ModelNotUsable, vae=tmp_path / "vae") == (
        f"{tmp_path / 'vae'}: holds no vae.safetensors: it is no directory of wm-train; give a directory that wm-train wrote"
    )


def test_a_directory_that_holds_something(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("42")
    assert refused(OutputNotUsable) == (
        f"{tmp_path / 'out'}: holds 'thesis.tex' already, and an export is never mixed with anything else; "
        "give a directory that is new or empty"
    )


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
@pytest.mark.parametrize("name", ["onnx", "int8"])
def test_a_missing_package(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert refused(PackageMissing, formats=("torchscript", name)) == (
        f"formats='{name}': needs {package}, which is not installed; pip install 'worldmodel_v[export]', "
        "or leave out onnx and int8"
    )


def test_torch_alone_is_enough_for_its_own_formats(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_onnx(name: str, *rest: object) -> object:
        if name.split(".")[0] in ("onnx", "onnxscript", "onnxruntime"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    data, vae = small
    report = export_model(
        ModelExportConfig(vae=vae, data=data, out=tmp_path / "model", formats=("torchscript", "torch.export"))
    )
    assert len(report.files) == 4


def test_rollouts_of_another_size(refused: Callable[..., str], tmp_path: Path, small: tuple[Path, Path]) -> None:
    data = write_rollouts(tmp_path / "rollouts", spec={"frame_height": 16, "frame_width": 16}, size=16, num_factors=2)
    assert refused(ModelNotUsable, data=data) == (
        f"{small[1]}: the VAE takes 8x8 frames, {data} holds 16x16; collect with frame_size='8', "
        "or give the rollouts that it was trained on"
    )


def test_rollouts_without_a_held_out_episode(refused: Callable[..., str], tmp_path: Path, small: tuple[Path, Path]) -> None:
    data, _ = small
    vae = write_vae(tmp_path / "vae", data, holdout_every=5, model=lively(VAES["mlp-conditional"]))
    assert refused(DatasetNotUsable, vae=vae).startswith(f"{data}: has 4 episodes; holding out every 5th needs at least 5")


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ((), "formats: expected one or more of torchscript, torch.export, onnx, int8, got ()"),
        (("onnx", "tflite"), "formats: expected some of torchscript, torch.export, onnx, int8, got 'tflite'"),
        (("onnx", "onnx"), "formats: expected each format once, got ('onnx', 'onnx')"),
    ],
)
def test_formats_that_make_no_sense(tmp_path: Path, formats: tuple, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelExportConfig(vae=tmp_path, data=tmp_path, out=tmp_path, formats=formats)
    assert str(caught.value) == message


# What does not compute the same is not written


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("encoder", lambda mu, logvar: (mu * 1.01, logvar), "encoder.pt2: mu is off by 0.01 of the largest"),
        ("encoder", lambda mu, logvar: (mu, logvar * np.nan), "encoder.pt2: logvar is off by nan of the largest"),
        ("decoder", lambda frames: (frames[:, :, :, ::-1],), "decoder.pt2: pixels are off by up to "),
    ],
)
def test_a_file_that_differs_fails_the_export(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, part: str, change: Callable, message: str
) -> None:
    real_run = stage.run_torch_export

    def run(file: Path) -> Callable:
        exact = real_run(file)
        return (lambda *inputs: change(*exact(*inputs))) if file.name.startswith(part) else exact

    monkeypatch.setattr(stage, "run_torch_export", run)
    line = refused(ModelFailed)
    assert line.startswith(message)
    assert "on held-out frames, " in line
    assert line.endswith(" is allowed; nothing was written; leave the format out of formats, or train the VAE further")


def test_eight_bits_that_lose_the_latents_fail_the_export(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    real_run = stage.run_onnx

    def run(file: Path) -> Callable:
        exact = real_run(file)
        return lambda *inputs: tuple(np.roll(output, 1, axis=1) for output in exact(*inputs))

    monkeypatch.setattr(stage, "run_onnx", run)
    line = refused(ModelFailed, formats=("int8",))
    assert line.startswith("encoder.int8.onnx: mu in 8 bits is off by ")
    assert "of its spread on held-out frames, 0.2 is allowed" in line


def test_what_only_takes_the_examples_rows_fails_the_export(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_rows_only(file: Path) -> Callable:
        exact = formats.run_torch_export(file)
        return lambda *inputs: exact(*(array[:2] for array in inputs))

    monkeypatch.setattr(stage, "run_torch_export", two_rows_only)
    line = refused(ModelFailed)
    assert line.startswith("encoder.pt2: cannot be written, or not be run on any number of frames (ValueError: operands could")
    assert line.endswith("); nothing was written; leave torch.export out of formats")


def test_an_exporter_that_fails_is_named(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(stage, "write_onnx", broken)
    assert refused(ModelFailed, formats=("torch.export", "onnx")) == (
        "encoder.onnx: cannot be written, or not be run on any number of frames (RuntimeError: no such operator); "
        "nothing was written; leave onnx out of formats"
    )
