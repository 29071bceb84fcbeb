"""The best weights of a training so far: `best.safetensors`. The autoencoder names the figure: a VAE the held-out ELBO.

The file has the format of `vae.safetensors`, with its step and figures in the metadata, so weights and figures always belong
together. By default the last step's weights are published at the end; --publish best publishes these instead. Two reasons:
the bound is measured on a few hundred frames, so its best value is partly luck; and a VAE of this size on streamed frames
hardly overfits.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from worldmodel_v.autoencoders import Autoencoder, save
from worldmodel_v.autoencoders.artifact import INVALID, metadata, read_file
from worldmodel_v.autoencoders.base import Figures
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.storage import files
from worldmodel_v.storage.publish import publish
from worldmodel_v.training.checkpoint import sealed, unseal
from worldmodel_v.untrusted import require_types

BEST_NAME = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The weights with the best score, and their step."""

    step: int
    settings: dict[str, Any]
    """Those of the training, with the number of rows of its data: figures of other data are not comparable."""

    figure: str
    """The figure by which they are the best."""

    heldout: Figures
    """The figures on held-out frames."""

    weights: dict[str, torch.Tensor]


def keep_if_best(folder: Path, step: int, settings: dict[str, Any], model: Autoencoder, heldout: Figures) -> None:
    """Save the weights if they score better than the folder's best, or if that best is of another training or other data.

    Raises WriteFailed, and then the previous ones stay; ModelNotUsable if the previous ones are damaged.
    """
    best = load_best(folder)
    if best is None or best.settings != settings or model.score.is_better(heldout, than=best.heldout):
        content = save(model)
        said = {"step": step, "settings": settings, "figure": model.score.figure, "heldout": heldout}
        notes = {name: json.dumps(value, sort_keys=True) for name, value in said.items()}
        publish(folder / BEST_NAME, sealed(safetensors.torch.load(content), metadata(content) | notes))


@dataclass
class _Recorded:
    """The JSON types of what is stored with the weights."""

    step: int
    settings: dict[str, Any]
    figure: str
    heldout: dict[str, float]


def load_best(folder: Path) -> Best | None:
    """The folder's best weights, or None if there are none; raises ModelNotUsable if they are damaged."""
    file = folder / BEST_NAME
    if not files.exists(file):
        return None
    try:
        weights, notes = unseal(read_file(file))
        said = {name: json.loads(notes[name]) for name in ("step", "settings", "figure", "heldout")}
        require_types(said, _Recorded)
        if said["figure"] not in said["heldout"]:
            raise ValueError(f"its figures have no {said['figure']!r:.100}")
        return Best(**said, weights=weights)
    except (*INVALID, RecursionError) as error:
        raise ModelNotUsable(
            f"the best weights are damaged ({error})", where=file, remedy="restore the file from a copy, or delete it"
        ) from None
