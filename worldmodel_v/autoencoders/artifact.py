"""A trained autoencoder on disk. Only this file knows its directory.

    vae.safetensors  float32 weights; in the metadata: kind, config, the columns that it stores, and the frames' preprocessing
    config.json      the settings and the data of its training

The file's SHA-256 identifies the autoencoder. Latents record it, so latents of two trainings can be told apart. The file
contains config and preprocessing, so weights cannot be paired with the wrong ones. Loading runs only this package's code:
a user's own `module:Class` is imported only if the caller names the same one.
"""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch

from worldmodel_v.autoencoders.base import Autoencoder, AutoencoderConfig
from worldmodel_v.autoencoders.frames import output_to_frames
from worldmodel_v.autoencoders.registry import BUILT_IN, autoencoder_class, config_from_json, create
from worldmodel_v.errors import ConfigError, ModelNotUsable, first_line
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.process import plain_tensors
from worldmodel_v.schema import Column
from worldmodel_v.settings import local_path
from worldmodel_v.storage import files
from worldmodel_v.storage.directory import MAX_JSON_BYTES
from worldmodel_v.storage.html import FRAMES, as_html, frames_picture
from worldmodel_v.storage.reading import readable
from worldmodel_v.surface import option
from worldmodel_v.untrusted import canonical_json, is_name, parse_object, require_types

WEIGHTS_NAME = "vae.safetensors"
CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
ENTRY = "autoencoder"
"""The entry in the metadata of `vae.safetensors`: a JSON object."""

CHECKPOINT_NAME = "checkpoint.safetensors"
"""The file that a training keeps until it is finished."""

EXTRA_LOSSES = (
    *("error_weight", "adversarial", "adversarial_start", "perceptual", "perceptual_network"),
    *("total_correlation", "total_correlation_estimator"),
)
"""The settings of losses beside the autoencoder's own. A training records those that have an effect."""

MAX_FILE_BYTES = 4 << 30
"""The largest file that is read into memory; the default VAE has 5 MB, its checkpoint 15 MB."""

MAX_HEADER_BYTES = 16 << 20
INVALID = (
    *(safetensors.SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError, IndexError),
    *(AttributeError, ArithmeticError, MemoryError),
)
"""What safetensors and torch raise for a file that is no valid autoencoder or checkpoint."""

Model = TypeVar("Model", bound=Autoencoder, covariant=True)


class TrainedOn(NamedTuple):
    """The frames that an autoencoder was trained on."""

    env: str
    """The environment's name."""

    preprocessing: Preprocessing
    """How its frames were preprocessed."""

    holdout_every: int | None = None
    """The k of "every k-th episode of a collection was held out"; None if it is not known."""

    collections: tuple[str, ...] = ()
    """The `spec_hash` of each collection that the other episodes are of."""


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """A trained autoencoder, and what its file says of it."""

    model: Model
    """In evaluation mode, on the CPU."""

    sha256: str
    """Of the file that it came from, in hexadecimal."""

    trained_on: TrainedOn | None
    """Whose frames it knows, and how they were preprocessed; None if the file does not say."""

    def __repr__(self) -> str:
        return f"Trained({self.model.config}, sha256 {self.sha256[:12]}…)"

    def _repr_html_(self) -> str:
        facts = {
            "autoencoder": self.model.kind,
            "settings": str(self.model.config),
            "sha256": self.sha256,
            "trained on": self.trained_on.env if self.trained_on else "not known",
        }
        samples = self._samples()
        return as_html(facts, None if samples is None else lambda: frames_picture(samples))

    @torch.no_grad()
    def _samples(self) -> np.ndarray | None:
        """A few frames decoded from the prior, uint8 (n, H, W, 3); None if it has none."""
        samples = self.model.samples(FRAMES, torch.Generator().manual_seed(0))
        return None if samples is None else output_to_frames(samples).numpy()


@dataclass(frozen=True)
class Description:
    """How a file of weights describes itself; reading it runs no code."""

    kind: str
    """Its name for `--autoencoder`."""

    config: dict[str, Any]
    columns: dict[str, str]
    """What it stores for each frame: for each column, dtype and shape as text."""

    num_parameters: int
    sha256: str


class Training(NamedTuple):
    """What a directory records of its training."""

    holdout_every: int
    data_spec_hash: str
    steps: int
    selected_from: tuple[str, ...] = ()
    """The `spec_hash` of each collection, if its data were selected."""

    losses: tuple[str, ...] = ()
    """The losses beside the autoencoder's own, in words: "adversarial 0.5"."""


def save(model: Autoencoder, trained_on: TrainedOn | None = None) -> bytes:
    """The bytes of `vae.safetensors`."""
    weights = {name: _copied(tensor) for name, tensor in model.state_dict().items()}
    columns = {column.name: _text(column) for column in model.latents("float32")[0]}
    record = {"kind": model.kind, "config": asdict(model.config), "columns": columns}
    if trained_on is not None:
        record["trained_on"] = {"env": trained_on.env, **asdict(trained_on.preprocessing), **_holdout_json(trained_on)}
    # one entry: safetensors writes several in random order
    return safetensors.torch.save(weights, metadata={ENTRY: canonical_json({**record, "sha256": _digest(record)})})


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """float32 on the CPU, in memory of its own: safetensors refuses weights that two layers share."""
    return tensor.detach().float().cpu().clone(memory_format=torch.contiguous_format)


def load(path: str | Path, autoencoder: str | None = None) -> Trained[Autoencoder]:
    """The autoencoder in the directory that `wm-train` wrote.

    A user's own `module:Class` is loaded only if `autoencoder` is the same name, because loading imports its module. Raises
    ModelNotUsable if there is no finished or valid one, ConfigError if it is not the one that was named.
    """
    return from_bytes(read_weights(local_path(path)), str(path), autoencoder)


def describe(path: Path) -> Description:
    """How the weights in a directory describe themselves; raises ModelNotUsable as `load` does. Built-in ones are loaded."""
    content = read_weights(path)
    with _named_damage(str(path)):
        record = _record(metadata(content))
        kind, columns, config = record["kind"], record["columns"], record["config"]
        if not isinstance(columns, dict) or not all(isinstance(text, str) and is_name(text) for text in columns.values()):
            raise ValueError("its columns are not texts by name")
        num_parameters = sum(tensor.numel() for tensor in safetensors.torch.load(content).values())
    if kind in BUILT_IN:
        model = from_bytes(content, str(path)).model
        num_parameters = sum(tensor.numel() for tensor in model.parameters())
        columns = {column.name: _text(column) for column in model.latents("float32")[0]}  # in their order
    return Description(kind, config, columns, num_parameters, hashlib.sha256(content).hexdigest())


@readable()
def read_training(path: Path) -> Training:
    """From the directory's `config.json`; raises ModelNotUsable if it is missing or damaged, NotReadable or ReadFailed."""
    file = path / CONFIG_NAME
    try:
        content = parse_object(files.read_file(file, MAX_JSON_BYTES))
        settings = content["training"]
        return Training(
            holdout_every=int(settings["holdout_every"]),
            data_spec_hash=str(settings["data_spec_hash"]),
            steps=int(content["steps"]),
            selected_from=tuple(str(each["spec_hash"]) for each in _selected_from(content)),
            losses=tuple(f"{name} {_plain_setting(settings[name])}" for name in EXTRA_LOSSES if name in settings),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelNotUsable(
            f"does not tell which episodes the training held out ({type(error).__name__}: {error})",
            where=file,
            remedy=f"run the wm-train command of {path} again, which writes it anew",
        ) from None


def _plain_setting(value: Any) -> str:
    if not isinstance(value, str | int | float) or not is_name(str(value)):
        raise ValueError(f"a setting of its losses is {value!r:.100}")
    return str(value)


def _selected_from(content: dict[str, Any]) -> list[dict[str, Any]]:
    origins: list[dict[str, Any]] = content.get("data", {}).get("selection", {}).get("origins", [])
    return origins


@readable()
def read_weights(path: Path) -> bytes:
    """The bytes of a directory's `vae.safetensors`; raises ModelNotUsable if there are none, NotReadable or ReadFailed."""
    file = path / WEIGHTS_NAME
    if path.exists() and not path.is_dir():
        what = "is a file" if path.is_file() else "is no directory"
        raise ModelNotUsable(what, where=path, remedy="give the directory that it lies in")
    if files.size(file) is None:
        begun = files.exists(path / CHECKPOINT_NAME)
        state = "its training is not finished" if begun else "it is no directory of wm-train"
        remedy = f"train with {option('out', path)} to the end" if begun else "give a directory that wm-train wrote"
        raise ModelNotUsable(f"holds no {WEIGHTS_NAME}: {state}", where=path, remedy=remedy)
    return read_file(file)


def read_file(file: Path, inside: Path | None = None) -> bytes:
    """The bytes of a file of weights; raises ModelNotUsable if it is too large, NotReadable or ReadFailed."""
    with readable(file):
        try:
            return files.read_file(file, MAX_FILE_BYTES, inside)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            what = f"cannot be read ({error.strerror})"
            raise ModelNotUsable(what, where=file, remedy="restore it, or train again") from None


@plain_tensors()
def from_bytes(content: bytes, source: str, autoencoder: str | None = None) -> Trained[Autoencoder]:
    """As `load`, from the bytes of the file; `source` names it in errors."""
    kind = kind_of(content, source)
    _require_named(kind, autoencoder, source)
    autoencoder_class(kind)  # outside the block: its errors do not mean a damaged file
    with _named_damage(source):
        record = _record(metadata(content))
        config = config_from_json(kind, record["config"])
        trained_on = _trained_on(record["trained_on"], config) if "trained_on" in record else None
        weights = safetensors.torch.load(content)
        if kind in BUILT_IN:
            _require_shapes(kind, config, weights)
        model = create(kind, config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if wrong := [name for name, tensor in weights.items() if tensor.dtype != torch.float32]:
            raise ValueError(f"{wrong[0]} is not float32")
        model.load_state_dict(weights)
    return Trained(model.eval(), hashlib.sha256(content).hexdigest(), trained_on)


def kind_of(content: bytes, source: str) -> str:
    """The name for `--autoencoder` of the autoencoder with these weights; raises ModelNotUsable."""
    with _named_damage(source):
        return _record(metadata(content))["kind"]


def _require_named(kind: str, asked: str | None, source: str) -> None:
    """Raise ConfigError if another kind was asked for; ModelNotUsable if it is a user's own and none was asked for."""
    if asked is not None and asked != kind:
        raise ConfigError("is not the one that was trained", where=source, field="autoencoder", got=asked, expected=kind)
    if asked is None and kind not in BUILT_IN:
        raise ModelNotUsable(
            f"its autoencoder is {kind}, which is no part of this package; its code runs only where you name it",
            where=source,
            remedy=f"if you trust that module, add {option('autoencoder', kind)}",
        )


@contextmanager
def _named_damage(source: str) -> Iterator[None]:
    """Turn the errors of damaged weights in the block into ModelNotUsable."""
    try:
        yield
    except INVALID as error:
        reason = first_line(error)
        raise ModelNotUsable(
            f"{WEIGHTS_NAME} is damaged or of another version ({reason})", where=source, remedy="restore it, or train again"
        ) from None


def _record(notes: dict[str, str]) -> dict[str, Any]:
    """What a file's metadata record; raises ValueError or KeyError if they were changed after writing."""
    record = parse_object(notes[ENTRY])
    if record.pop("sha256", None) != _digest(record):
        raise ValueError("its configuration is not what was written")
    kind = record["kind"]
    if not isinstance(kind, str) or not is_name(kind) or (kind not in BUILT_IN and ":" not in kind):
        raise ValueError(f"its kind is {kind!r:.100}")
    if not isinstance(record["config"], dict):
        raise ValueError("its configuration is no object")
    return record


def _trained_on(recorded: Any, config: AutoencoderConfig) -> TrainedOn:
    if not isinstance(recorded, dict) or not isinstance(recorded.get("env"), str) or not recorded["env"].isprintable():
        raise ValueError("the environment that it was trained on has no printable name")
    settings = {name: value for name, value in recorded.items() if name != "env"}
    holdout_every, collections = _holdout(settings.pop("holdout", None))
    require_types(settings, Preprocessing)
    preprocessing = Preprocessing(**settings)
    if preprocessing.frame_shape != config.frame_shape:
        raise ValueError(
            f"it was trained on frames of {preprocessing.frame_shape}, its configuration says {config.frame_shape}"
        )
    return TrainedOn(recorded["env"], preprocessing, holdout_every, collections)


def _holdout_json(trained_on: TrainedOn) -> dict[str, Any]:
    every, collections = trained_on.holdout_every, [*trained_on.collections]
    return {} if every is None else {"holdout": {"every": every, "collections": collections}}


def _holdout(recorded: Any) -> tuple[int | None, tuple[str, ...]]:
    """Raises ValueError, KeyError or TypeError if it is no record of it."""
    if recorded is None:
        return None, ()
    every, collections = recorded["every"], recorded["collections"]
    if type(every) is not int or every < 2 or not all(isinstance(each, str) and is_name(each) for each in collections):
        raise ValueError("it does not say which episodes were held out, as it should")
    return every, tuple(collections)


def _require_shapes(kind: str, config: AutoencoderConfig, weights: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless the file holds the tensors of its configuration; so no config takes more memory than its file."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in create(kind, config).state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = wrong[0]
        shapes = [list(shapes[name]) if name in shapes else "not there" for shapes in (found, expected)]
        raise ValueError(f"{name} is {shapes[0]}, its configuration says {shapes[1]}")


def _text(column: Column) -> str:
    values = "" if column.num_values is None else f", {column.num_values} values"
    return f"{column.dtype} {list(column.row_shape)}{values}"


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
