"""A finished VAE on disk: `vae.safetensors`, weights with the configuration and the frames' preprocessing inside, and its hash.

The file's SHA-256 names the VAE: latents carry it, so that they can be told from those of another training. Loading it
runs no code. Configuration and preprocessing stand inside the file, so weights cannot be paired with the wrong ones.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch

from worldmodel_v.autoencoders.gaussian.vae import VAE, VAEConfig
from worldmodel_v.errors import ConfigError, NotAModel
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.storage.reading import readable
from worldmodel_v.untrusted import canonical_json, is_name, parse_object, require_types

WEIGHTS_NAME = "vae.safetensors"
MAX_FILE_BYTES = 4 << 30
"""What is read into memory at most; the default VAE has 5 MB, its checkpoint 15."""

MAX_HEADER_BYTES = 16 << 20
INVALID = (
    *(safetensors.SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError, IndexError),
    *(AttributeError, ArithmeticError, MemoryError),
)
"""What a file that is no valid VAE or checkpoint makes safetensors and torch raise."""


class TrainedOn(NamedTuple):
    """What frames a VAE was trained on."""

    env: str
    """The environment's name."""

    preprocessing: Preprocessing
    """What was made of its frames."""


@dataclass(frozen=True)
class LoadedVAE:
    """A VAE in evaluation mode, and the SHA-256 (hexadecimal) of the file it came from."""

    model: VAE
    sha256: str
    trained_on: TrainedOn | None
    """None if the file does not say."""


def save_vae(model: VAE, trained_on: TrainedOn | None = None) -> bytes:
    """The bytes of `vae.safetensors`: float32 weights, with the configuration, and what it was trained on, as metadata."""
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    notes = {"config": _with_hash(asdict(model.config))}
    if trained_on is not None:
        notes["trained_on"] = _with_hash({"env": trained_on.env, **asdict(trained_on.preprocessing)})
    return safetensors.torch.save(weights, metadata=notes)


def load_vae(path: Path) -> LoadedVAE:
    """Load a VAE from the directory that `wm-train` wrote; raises NotAModel if there is no finished or valid one."""
    return vae_from_bytes(read_weights(path), str(path))


@readable()
def read_weights(path: Path) -> bytes:
    """The bytes of a directory's `vae.safetensors`; raises NotAModel if there are none, or NotReadable."""
    file = path / WEIGHTS_NAME
    if path.is_file():
        raise NotAModel(f"{path}: is a file; give the directory that it lies in")
    if not file.is_file():
        state = (
            "its training is not finished" if (path / "checkpoint.safetensors").exists() else "it is no directory of wm-train"
        )
        raise NotAModel(
            f"{path}: holds no {WEIGHTS_NAME}: {state}; run wm-train --out {path} to the end, or give another directory"
        )
    return read_file(file)


@readable()
def read_file(file: Path) -> bytes:
    """The bytes of a file of weights; raises NotAModel if they are more than any has or the disk fails, or NotReadable."""
    try:
        if (num_bytes := file.stat().st_size) > MAX_FILE_BYTES:
            raise NotAModel(f"{file}: has {num_bytes} bytes, expected at most {MAX_FILE_BYTES}; restore it, or train again")
        return file.read_bytes()
    except PermissionError:
        raise
    except OSError as error:
        raise NotAModel(f"{file}: cannot be read ({error.strerror}); restore it, or train again") from None


def vae_from_bytes(content: bytes, source: str) -> LoadedVAE:
    """Load a VAE from the bytes of its file; `source` names it in errors. Raises NotAModel if they are damaged."""
    try:
        notes = metadata(content)
        config = _config(notes)
        trained_on = _trained_on(notes, config)
        weights = safetensors.torch.load(content)
        _require_shapes(config, weights)
        model = VAE(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if wrong := [name for name, tensor in weights.items() if tensor.dtype != torch.float32]:
            raise ValueError(f"{wrong[0]} is not float32")
        model.load_state_dict(weights)
    except INVALID as error:
        reason = f"{error} ".splitlines()[0].strip()
        raise NotAModel(
            f"{source}: {WEIGHTS_NAME} is damaged or of another version ({reason}); restore it, or train again"
        ) from None
    return LoadedVAE(model.eval(), hashlib.sha256(content).hexdigest(), trained_on)


def _config(recorded_beside: dict[str, str]) -> VAEConfig:
    """The configuration of a file's metadata; raises ValueError if it is not as it was written.

    What an older file does not say has its default, and it has no hash.
    """
    recorded = parse_object(recorded_beside["config"])
    written = recorded.pop("sha256", None)
    if written not in (None, _digest(recorded)):
        raise ValueError("its configuration is not what was written")
    require_types(recorded, VAEConfig)
    return VAEConfig(**{**recorded, "condition": tuple(recorded.get("condition", ()))})


def _trained_on(recorded_beside: dict[str, str], config: VAEConfig) -> TrainedOn | None:
    """What a file's metadata say of the frames; raises ValueError or ConfigError if it is not as it was written."""
    if "trained_on" not in recorded_beside:
        return None
    recorded = parse_object(recorded_beside["trained_on"])
    if recorded.pop("sha256", None) != _digest(recorded):
        raise ValueError("what it says of the frames is not what was written")
    env = recorded.pop("env")
    if not isinstance(env, str) or not is_name(env):
        raise ValueError("its environment has no name")
    require_types(recorded, Preprocessing)
    preprocessing = Preprocessing(**recorded)
    if preprocessing.frame_shape != config.frame_shape:
        raise ValueError(
            f"it was trained on frames of {preprocessing.frame_shape}, its configuration says {config.frame_shape}"
        )
    return TrainedOn(env, preprocessing)


def _require_shapes(config: VAEConfig, weights: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless the file holds what its configuration asks for: no more memory is taken than it backs."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in VAE(config).state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = wrong[0]
        shapes = [list(shapes[name]) if name in shapes else "not there" for shapes in (found, expected)]
        raise ValueError(f"{name} is {shapes[0]}, its configuration says {shapes[1]}")


def _with_hash(record: dict[str, Any]) -> str:
    return canonical_json({**record, "sha256": _digest(record)})


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()


def metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file in memory: an 8-byte length, then a JSON header with `__metadata__`.

    Raises ValueError or KeyError if there is none.
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"it claims a header of {length} bytes, the file has {len(content)}")
    notes = parse_object(content[8 : 8 + length])["__metadata__"]
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise ValueError("its metadata are not texts by name")
    return notes
