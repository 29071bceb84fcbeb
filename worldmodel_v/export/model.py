"""A VAE's encoder and decoder as files that run without this package, each checked against the original.

OUT/encoder.pt decoder.pt (TorchScript), encoder.pt2 decoder.pt2 (torch.export), encoder.onnx decoder.onnx, encoder.int8.onnx,
and model.json, which says how to call them, how to prepare frames, and how much each file differs from the original.

The rollouts are required: every file is run on frames of held-out episodes before it is published, and the 8-bit encoder is
calibrated on frames of the other episodes. Rejected: checking on noise if there are no rollouts, because outputs that agree
on noise may differ on frames.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch

from worldmodel_v import __version__
from worldmodel_v.autoencoders.artifact import Trained, read_training
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder, load_vae
from worldmodel_v.data import Split, condition_reader, read_conditions, read_frames
from worldmodel_v.data.fit import require_fit
from worldmodel_v.errors import ConfigError, ModelFailed, one_line
from worldmodel_v.export.difference import Probe, decoder_difference, encoder_difference, probe
from worldmodel_v.export.formats import (
    PACKAGES,
    SUFFIXES,
    Arrays,
    FormatName,
    Runner,
    require_packages,
    run_onnx,
    run_torch_export,
    run_torchscript,
    write_onnx,
    write_torch_export,
    write_torchscript,
)
from worldmodel_v.export.int8 import write_int8
from worldmodel_v.export.modules import Part, parts
from worldmodel_v.notebook import shown
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress
from worldmodel_v.settings import require_settings
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import LocalPath, Location, Rollouts, require_dataset, to_place
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.new_directory import new_directory, require_new
from worldmodel_v.surface import option

MODEL_NAME = "model.json"
MODEL_FORMAT = "worldmodel_v/model"
CHECKED_FRAMES = 512
CALIBRATION_FRAMES = 1024


@dataclass(frozen=True, kw_only=True)
class ModelExportConfig:
    """Write a VAE's encoder and decoder as files that run without this package, each checked on held-out frames."""

    vae: LocalPath = LocalPath()
    """The directory that wm-train wrote."""

    data: Location
    """Rollouts: every file is checked on frames of held-out episodes, int8 is calibrated on frames of the others."""

    out: LocalPath = LocalPath()
    """The directory to write: new or empty."""

    formats: tuple[FormatName, ...] = get_args(FormatName)
    """Formats to write: torchscript (deprecated by PyTorch), torch.export, onnx, and int8 (only the encoder, for CPUs)."""

    def __post_init__(self) -> None:
        require_settings(self)
        object.__setattr__(self, "data", to_place(self.data))
        if not self.formats:
            raise ConfigError(field="formats", expected=f"one or more of {', '.join(SUFFIXES)}", got=())
        if unknown := [name for name in self.formats if name not in SUFFIXES]:
            raise ConfigError(field="formats", expected=f"some of {', '.join(SUFFIXES)}", got=unknown[0])
        if len(set(self.formats)) < len(self.formats):
            raise ConfigError(field="formats", expected="each format once", got=self.formats)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file of the export, and how much its outputs differ from the original's."""

    name: str
    part: str
    """encoder or decoder"""

    format: FormatName
    bytes: int
    sha256: str
    difference: dict[str, float]
    """For an encoder: `max_mu`, `mean_mu_in_sigma` (of the posterior), `rms_mu_in_spread` (of mu over frames), `max_logvar`;
    for a decoder: `max_levels`, `mean_levels` (of 255)."""

    def __str__(self) -> str:
        found = self.difference
        if self.part == "decoder":
            return (
                f"{self.name}: pixels differ by at most {found['max_levels']:g} of 255 levels, mean {found['mean_levels']:.1g}"
            )
        return (
            f"{self.name}: mu differs by at most {found['max_mu']:.2g}, mean {found['mean_mu_in_sigma']:.2g} sigma "
            f"({found['rms_mu_in_spread']:.1%} of its spread)"
        )


@dataclass(frozen=True, kw_only=True)
class ModelExportReport:
    """What a run of `export_model` wrote."""

    out: Path
    vae_sha256: str
    checked_frames: int
    files: tuple[ExportedFile, ...]


@plain_tensors()
def export_model(config: ModelExportConfig, progress: Progress | None = None) -> ModelExportReport:
    """Write `config.out` completely or not at all.

    Raises UsageError (PackageMissing, OutputNotUsable, DatasetNotUsable, ModelNotUsable, …) before it
    writes anything, ModelFailed if a file does not compute what the original does, WriteFailed if the disk fails.
    """
    progress = shown(progress)
    require_packages(config.formats)
    require_new(config.out)
    dataset = require_dataset(config.data, RolloutSpec)
    vae = load_vae(config.vae)
    require_fit(vae, dataset, config.vae, "give the rollouts that it was trained on")
    holdout_every = read_training(config.vae).holdout_every
    split = Split(dataset, holdout_every)
    split.require_both()

    def inputs(held_out: bool, limit: int) -> Arrays:
        return _encoder_inputs(dataset, vae, split.is_held_out if held_out else split.is_trained_on, limit)

    calibration = inputs(False, CALIBRATION_FRAMES) if "int8" in config.formats else ()
    expected = probe(vae.model, inputs(True, CHECKED_FRAMES))
    halves = parts(vae.model)
    with new_directory(config.out) as folder:
        wanted = [(part, name) for name in config.formats for part in (halves[:1] if name == "int8" else halves)]
        task = progress.task("export", len(wanted), "files")
        files: list[ExportedFile] = []
        for part, name in wanted:
            files.append(_export(part, name, folder, calibration, expected))
            task.advance()
        task.close()
        checked_on = {"data_spec_hash": dataset.spec_hash, "holdout_every": holdout_every, "frames": len(expected.frames)}
        content = _description(vae, dataset, halves, files) | {"checked_on": checked_on}
        (folder / MODEL_NAME).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return ModelExportReport(out=config.out, vae_sha256=vae.sha256, checked_frames=len(expected.frames), files=tuple(files))


def _encoder_inputs(dataset: Rollouts, vae: Trained[GaussianAutoencoder], wanted: Callable[[int], bool], limit: int) -> Arrays:
    """Inputs of the encoder, evenly spaced over the wanted episodes: frames, and for a conditional VAE their conditions."""
    frames = read_frames(dataset, wanted, limit)
    condition = condition_reader(vae.model.config.condition, vae.model.config.condition_dim)
    return (frames,) if condition is None else (frames, read_conditions(dataset, wanted, limit, condition))


def _export(part: Part, name: FormatName, folder: Path, calibration: Arrays, expected: Probe) -> ExportedFile:
    """Write an encoder or decoder in one format and compare it with the original; raises ModelFailed."""
    file = folder / (part.name + SUFFIXES[name])
    try:
        run = _write(part, name, file, calibration)
        if part.name == "encoder":
            difference = encoder_difference(file.name, run, expected, quantised=name == "int8")
        else:
            difference = decoder_difference(file.name, run, expected)
    except (ModelFailed, OSError):
        raise
    except Exception as error:
        raise ModelFailed(
            f"{file.name}: cannot be written, or not be run on any number of frames ({one_line(error)}); nothing was written",
            remedy=f"leave {name} out of {option('formats')}",
        ) from error
    return ExportedFile(
        name=file.name,
        part=part.name,
        format=name,
        bytes=file.stat().st_size,
        sha256=sha256_of_file(file),
        difference=difference,
    )


def _write(part: Part, name: FormatName, file: Path, calibration: Arrays) -> Runner:
    """Write a file, and load it again."""
    match name:
        case "torchscript":
            write_torchscript(part, file)
            return run_torchscript(file)
        case "torch.export":
            write_torch_export(part, file)
            return run_torch_export(file)
        case "onnx":
            write_onnx(part, file)
            return run_onnx(file)
        case "int8":
            write_int8(part, file, calibration)
            return run_onnx(file)


def _description(
    vae: Trained[GaussianAutoencoder], dataset: Rollouts, halves: tuple[Part, ...], files: list[ExportedFile]
) -> dict[str, Any]:
    """The content of `model.json`, without the data that the files were checked on."""
    packages = ["torch", *dict.fromkeys(package for file in files for package in PACKAGES[file.format])]
    return {
        "format": MODEL_FORMAT,
        "format_version": 1,
        "vae_sha256": vae.sha256,
        "model": asdict(vae.model.config),
        "frames": {
            "environment": dataset.spec.env,
            **asdict(dataset.spec.preprocessing),
            "layout": "rows, columns, RGB; uint8 from 0 to 255, scaled inside the encoder",
        },
        **{part.name: _signature(part) for part in halves},
        "files": {file.name: {key: value for key, value in asdict(file).items() if key != "name"} for file in files},
        "versions": {"worldmodel_v": __version__, **{package: version(package) for package in packages}},
    }


def _signature(part: Part) -> dict[str, Any]:
    """Inputs and outputs in order, each with its dtype and shape."""
    with torch.inference_mode():
        outputs = part.module(*part.inputs.values())
    given = dict(zip(part.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    return {"inputs": _tensors(part.inputs), "outputs": _tensors(given)}


def _tensors(tensors: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    return [
        {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}
        for name, tensor in tensors.items()
    ]
