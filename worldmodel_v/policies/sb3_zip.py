"""What a zip of Stable-Baselines3 says without running any of it.

`policy.pth` is a state dict. `data` is JSON, in which each Python object stands as a pickle (`:serialized:`) beside readable
copies of its attributes, one level deep: JSON values as they are, all else as `str` shows it. The pickles are never read.
"""

import functools
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies.checkpoint import require_weights
from worldmodel_v.policies.torch_file import read_torch, require_plain
from worldmodel_v.untrusted import parse_object

MAX_DATA_BYTES = 64 << 20
"""Of `data`, which also holds the last observations of the training."""

ONNX_INSTEAD = "export what acts as ONNX, and give onnx:FILE(observation=1)"
"""What to do about a network that is not rebuilt."""

ACTIVATIONS = ("Tanh", "ReLU", "ELU", "GELU", "LeakyReLU", "Mish", "SELU", "SiLU", "Sigmoid", "Softplus")
EXTRACTORS = ("NatureCNN", "FlattenExtractor")
TYPES = {"normalize_images": bool, "squash_output": bool, "clip_mean": float | int}
NOT_NEEDED = {
    *(":type:", ":serialized:", "net_arch", "features_extractor_kwargs", "share_features_extractor", "n_critics"),
    *("use_sde", "full_std", "use_expln", "log_std_init", "ortho_init", "optimizer_class", "optimizer_kwargs"),
}
"""Of `policy_kwargs`: what the weights' names and shapes say too, and what matters in training alone."""


@dataclass(frozen=True)
class PolicyKwargs:
    """What a model's `policy_kwargs` say of how it acts; the defaults are those of Stable-Baselines3."""

    activation: str | None
    """A name of `torch.nn`; None for the algorithm's own."""

    normalize_images: bool = True
    squash_output: bool = False
    clip_mean: float = 2.0


@dataclass(frozen=True)
class SavedModel:
    """A zip as `model.save` writes it."""

    file: Path
    data: dict[str, Any]
    weights: dict[str, torch.Tensor]
    """The state dict of the policy."""

    @property
    def policy_module(self) -> str:
        """The module of the policy's class, which says the algorithm's family."""
        policy_class = self.data.get("policy_class")
        return str(policy_class.get("__module__")) if isinstance(policy_class, dict) else "none"

    @property
    def is_on_policy(self) -> bool:
        """Whether its algorithm is PPO, A2C or another that learns from what it has just done."""
        return self.policy_module == "stable_baselines3.common.policies"

    @property
    def use_sde(self) -> bool:
        """Whether its noise depends on the state (gSDE)."""
        return bool(self.data.get("use_sde"))

    @functools.cached_property
    def policy_kwargs(self) -> PolicyKwargs:
        """Raises PolicyNotUsable if one of them is not known, or can be read from its pickle alone."""
        given = self.data.get("policy_kwargs")
        if not isinstance(given, dict):
            raise self.refusal(f"its policy_kwargs are {given!r:.100}, expected an object", "save the model again")
        activation = _class_of("torch.nn.modules.activation", given.get("activation_fn"), ACTIVATIONS)
        extractor = _class_of("stable_baselines3.common.torch_layers", given.get("features_extractor_class"), EXTRACTORS)
        values = {name: given[name] for name, kind in TYPES.items() if isinstance(given.get(name), kind)}
        read = NOT_NEEDED | values.keys()
        read |= {name for name, value in (("activation_fn", activation), ("features_extractor_class", extractor)) if value}
        if unread := [f"{name:.100} = {value!r:.100}" for name, value in given.items() if name not in read]:
            told = ", ".join(unread[:3])
            raise self.refusal(f"its policy_kwargs have {told}, which is not rebuilt", ONNX_INSTEAD)
        return PolicyKwargs(activation, **values)

    def refusal(self, what: str, remedy: str) -> PolicyNotUsable:
        """The error that says what of the file cannot be used, and what to do; in one line, whatever the file says."""
        told = "".join(character if character.isprintable() else "?" for character in " ".join(what.split()))
        return PolicyNotUsable(f"policy sb3: {self.file}: {told:.600}; {remedy}")


def read_zip(file: Path) -> SavedModel:
    """Raises PolicyNotUsable if the file is no such zip, would run code, or would grow in memory."""
    num_bytes, where = require_weights(file), f"policy sb3: {file}"
    try:
        with zipfile.ZipFile(file) as archive:
            require_plain(archive, num_bytes, where)
            if archive.getinfo("data").file_size > MAX_DATA_BYTES:
                raise ValueError
            data = parse_object(archive.read("data"))
            content = archive.read("policy.pth")
        weights = read_torch(io.BytesIO(content), len(content), f"{where}: policy.pth")
        if not all(isinstance(name, str) and _is_weight(value) for name, value in weights.items()):
            raise TypeError
    except PolicyNotUsable:
        raise
    except Exception as error:  # of any class: zipfile promises none
        raise PolicyNotUsable(
            f"{where} cannot be read as a model of Stable-Baselines3 ({type(error).__name__}); "
            "give the zip that its model.save wrote"
        ) from None
    return SavedModel(file, data, dict(weights))


def _is_weight(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _class_of(module: str, text: Any, known: tuple[str, ...]) -> str | None:
    """The name of a known class of a module, of the text that `str` shows; None if it is another."""
    return next((name for name in known if text == f"<class '{module}.{name}'>"), None)
