"""The MDN-RNN of `examples/train_mdn_rnn.py`, read as data: its weights, what its actions are, and whose latents it knows.

Legend: Z latent, A action vector, R size of the LSTM's state, K Gaussians in a mixture.

Nothing of the example is imported. Every tensor must be there and of the shape that the others ask for.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from worldmodel_v.autoencoders.artifact import INVALID, metadata, read_file
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.schema import ActionSpace
from worldmodel_v.storage import files
from worldmodel_v.untrusted import parse_object, shortened
from worldmodel_v.view.packing import Weights

WEIGHTS_NAME = "mdn_rnn.safetensors"
MIN_LOG_SIGMA, MAX_LOG_SIGMA = -6.0, 3.0
"""The limits of log σ in the example, which its file does not hold."""

REMEDY = "train it with examples/train_mdn_rnn.py on latents of this VAE"


@dataclass(frozen=True)
class MdnRnn:
    """A recurrent model that fits the VAE and the actions."""

    tensors: dict[str, np.ndarray]
    hidden: int
    mixtures: int

    def for_page(self, weights: Weights) -> dict[str, Any]:
        """Its sizes, and where its tensors are in `weights`; matrices are transposed for `x @ W`."""
        matrices = {name: values.T if values.ndim == 2 else values for name, values in self.tensors.items()}
        places = {name: weights.add(np.ravel(values) if values.ndim == 0 else values) for name, values in matrices.items()}
        limits = {"minLogSigma": MIN_LOG_SIGMA, "maxLogSigma": MAX_LOG_SIGMA}
        return {"hidden": self.hidden, "mixtures": self.mixtures, **limits, "tensors": places}


def read_mdn_rnn(folder: Path, *, vae_sha256: str, latent_dim: int, actions: ActionSpace) -> MdnRnn:
    """The model in a folder; raises ModelNotUsable if it is damaged, or knows other latents or actions."""
    file = folder / WEIGHTS_NAME
    if files.size(file) is None:
        raise ModelNotUsable(f"holds no {WEIGHTS_NAME}", where=folder, remedy=REMEDY)
    content = read_file(file)
    try:
        about = parse_object(metadata(content)["about"])
        tensors = {name: np.asarray(values, np.float32) for name, values in safetensors.numpy.load(content).items()}
        known_vae, known_actions = about["vae_sha256"], ActionSpace(about["action_space"])
        hidden, mixtures = _sizes(tensors)
    except INVALID as error:
        raise ModelNotUsable(f"is no MDN-RNN ({type(error).__name__}: {error})", where=file, remedy=REMEDY) from None
    if known_vae != vae_sha256:
        what = f"knows the latents of another VAE, {str(known_vae)[:12]}…; this one is {vae_sha256[:12]}…"
        raise ModelNotUsable(what, where=file, remedy=REMEDY)
    if known_actions.record != actions.record:
        expected, got = (shortened(json.dumps(space.record)) for space in (actions, known_actions))
        raise ModelNotUsable(
            "knows other actions", where=file, expected=expected, got=got, remedy="give data of the same actions"
        )
    _require_shapes(file, tensors, _shapes(latent_dim, actions.vector_size, hidden, mixtures))
    return MdnRnn(tensors, hidden, mixtures)


def _sizes(tensors: dict[str, np.ndarray]) -> tuple[int, int]:
    """R and K, which the other shapes are compared with."""
    hidden, outputs = tensors["lstm.weight_hh_l0"].shape[1], tensors["head.weight"].shape[0]
    return hidden, (outputs - 2) // (3 * tensors["z_mean"].size)


def _shapes(latent_dim: int, action_size: int, hidden: int, mixtures: int) -> dict[str, tuple[int, ...]]:
    outputs = 2 + 3 * latent_dim * mixtures
    return {
        "lstm.weight_ih_l0": (4 * hidden, latent_dim + action_size),
        "lstm.weight_hh_l0": (4 * hidden, hidden),
        "lstm.bias_ih_l0": (4 * hidden,),
        "lstm.bias_hh_l0": (4 * hidden,),
        "head.weight": (outputs, hidden),
        "head.bias": (outputs,),
        "z_mean": (latent_dim,),
        "z_std": (latent_dim,),
        "reward_mean": (),
        "reward_std": (),
        "usual_termination": (),
    }


def _require_shapes(file: Path, tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    for name in sorted(tensors.keys() | shapes.keys()):
        found = tensors[name].shape if name in tensors else "not there"
        if name not in shapes or found != shapes[name]:
            expected = str(list(shapes[name])) if name in shapes else "no such tensor"
            raise ModelNotUsable(f"{name!r:.100} does not fit", where=file, expected=expected, got=str(found), remedy=REMEDY)
        if not np.isfinite(tensors[name]).all():
            raise ModelNotUsable(f"{name} is NaN or infinite", where=file, remedy=REMEDY)
