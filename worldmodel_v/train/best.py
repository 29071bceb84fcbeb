"""The best weights of a training so far, by the held-out ELBO: `best.safetensors`.

The file is a finished VAE's, `vae.safetensors` under another name, with its step and figures in the metadata, so that weights
and figures appear together and are never of two moments. What is published at the end is the last step's weights unless
--publish best asks for these: the bound is measured on a few hundred frames, so its best value is partly luck, and a VAE of
this size on streamed frames hardly overfits.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from worldmodel_v.autoencoders.artifact import INVALID, metadata, read_file
from worldmodel_v.autoencoders.gaussian import VAE, save_vae
from worldmodel_v.errors import NotAModel
from worldmodel_v.evaluate import Evaluation
from worldmodel_v.storage.publish import publish
from worldmodel_v.train.checkpoint import sealed, unseal
from worldmodel_v.untrusted import require_types

BEST_NAME = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The weights with the highest held-out ELBO, and when they were met."""

    step: int
    settings: dict[str, Any]
    """Of the training, with the number of rows of its data: figures of other data are not comparable."""

    elbo_nats: float
    """On held-out frames, every constant included."""

    heldout: Evaluation
    weights: dict[str, torch.Tensor]


def keep_if_best(folder: Path, step: int, settings: dict[str, Any], model: VAE, elbo_nats: float, heldout: Evaluation) -> None:
    """Save the weights if their ELBO is above that of the folder's best, or if those are of another training or other data.

    Raises WriteFailed, and then the previous ones stay; NotAModel if those are damaged.
    """
    best = load_best(folder)
    if best is None or best.settings != settings or elbo_nats > best.elbo_nats:
        vae = save_vae(model)
        figures = {"step": step, "settings": settings, "elbo_nats": elbo_nats, "heldout": asdict(heldout)}
        notes = {name: json.dumps(value, sort_keys=True) for name, value in figures.items()}
        publish(folder / BEST_NAME, sealed(safetensors.torch.load(vae), metadata(vae) | notes))


def load_best(folder: Path) -> Best | None:
    """The folder's best weights, or None if there are none; raises NotAModel if they are damaged."""
    file = folder / BEST_NAME
    if not file.exists():
        return None
    try:
        weights, notes = unseal(read_file(file))
        figures = {name: json.loads(notes[name]) for name in ("step", "settings", "elbo_nats", "heldout")}
        require_types({name: figures[name] for name in ("step", "settings", "elbo_nats")}, Best)
        return Best(**{**figures, "heldout": Evaluation(**figures["heldout"])}, weights=weights)
    except (*INVALID, RecursionError) as error:
        raise NotAModel(f"{file}: the best weights are damaged ({error}); restore the file from a copy, or delete it") from None
