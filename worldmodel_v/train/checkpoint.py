"""Where a training stands: one `checkpoint.safetensors`, put in place whole, that runs no code when it is loaded.

It holds the weights, the optimiser's moments and the step. Nothing else is needed to continue: the order of the frames,
the latent noise and the schedule are functions of the seed and the step.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from worldmodel_v.errors import NotAModel
from worldmodel_v.models import VAE
from worldmodel_v.storage.publish import publish

CHECKPOINT_NAME = "checkpoint.safetensors"
_REMEDY = "restore it from a copy, or train anew with --no-resume"
_MODEL, _OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """A training's state, on the CPU."""

    step: int
    """Optimiser steps done."""

    settings: dict[str, Any]
    """What the training was asked for: `TrainConfig.identity()` and the dataset's spec hash."""

    tensors: dict[str, torch.Tensor]

    def restore(self, model: VAE, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and moments back; the optimiser must be over `model.parameters()`.

        Moments take the memory layout of their parameter: fused optimisers pair the two element by element in memory.
        """
        try:
            self._restore(model, optimizer)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise NotAModel(f"the checkpoint of step {self.step} does not fit its settings ({reason}); {_REMEDY}") from None

    def _restore(self, model: VAE, optimizer: torch.optim.Optimizer) -> None:
        model.load_state_dict(self._under(_MODEL))
        parameters = list(model.parameters())
        state = optimizer.state_dict()
        for name, tensor in self._under(_OPTIMIZER).items():
            number, key = name.split(".")
            moment = tensor if tensor.ndim == 0 else torch.empty_like(parameters[int(number)]).copy_(tensor)
            state["state"].setdefault(int(number), {})[key] = moment
        optimizer.load_state_dict(state)

    def _under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def save_checkpoint(folder: Path, step: int, settings: dict[str, Any], model: VAE, optimizer: torch.optim.Optimizer) -> None:
    """Replace the folder's checkpoint; raises WriteFailed, and then the previous one stays."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for parameter, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{parameter}.{key}": tensor for key, tensor in moments.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    publish(folder / CHECKPOINT_NAME, safetensors.torch.save(contiguous, metadata=metadata))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint, or None if there is none; raises NotAModel if it is damaged."""
    file = folder / CHECKPOINT_NAME
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a dict)
        return Checkpoint(int(metadata["step"]), json.loads(metadata["settings"]), tensors)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise NotAModel(f"{file}: the checkpoint is damaged ({error}); {_REMEDY}") from None
