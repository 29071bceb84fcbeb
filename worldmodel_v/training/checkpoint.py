"""The state of a training: one `checkpoint.safetensors`. It is replaced atomically, and loading it runs no code.

It holds the weights, the step, the state of any optimiser and that of extra losses. Nothing else is needed to continue: the
order of the frames, the latent noise and the schedules are functions of the seed and the step. The format has no checksum, so
the metadata hold a SHA-256 of everything, which is verified at every load.

If several checkpoints are kept, each is written a second time as `checkpoints/step_0001500.safetensors`. (After a kill between
the two writes, this happens when training continues.) To go back to one, copy it over `checkpoint.safetensors`. Rejected:
hard links; they save the second write, but such a copy would overwrite the kept checkpoint too.
"""

import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.artifact import CHECKPOINT_NAME, INVALID, metadata, read_file
from worldmodel_v.errors import ModelNotUsable, first_line
from worldmodel_v.storage import files
from worldmodel_v.storage.publish import named_failure, publish, remove
from worldmodel_v.surface import option
from worldmodel_v.training.extras import Extras, under
from worldmodel_v.training.optimizers import as_tensors, restore_state, state_of
from worldmodel_v.untrusted import parse_object

KEPT_FOLDER = "checkpoints"
_MODEL, _OPTIMIZER, _EXTRA = "model.", "optimizer.", "extra."
_NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Checkpoint:
    """A training's state, on the CPU."""

    step: int
    """Optimiser steps done."""

    settings: dict[str, Any]
    """The settings of the training: `TrainConfig.identity()` and the dataset's `spec_hash`."""

    tensors: dict[str, torch.Tensor]

    precisions: tuple[str, ...] = ()
    """What its steps were computed in: fp32, bf16, or both, if it went on elsewhere; empty if an older file does not say."""

    @classmethod
    def of(
        cls,
        step: int,
        settings: dict[str, Any],
        model: Autoencoder,
        optimizer: torch.optim.Optimizer,
        extras: Extras = _NO_EXTRAS,
        precisions: tuple[str, ...] = (),
    ) -> "Checkpoint":
        """The present state, copied."""
        tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
        tensors |= {_OPTIMIZER + name: tensor for name, tensor in as_tensors(state_of(optimizer)).items()}
        tensors |= {_EXTRA + name: tensor for name, tensor in extras.tensors().items()}
        copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format).cpu() for name, tensor in tensors.items()}
        return cls(step, settings, copies, precisions)

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> "Checkpoint":
        """The checkpoint in the bytes of `to_bytes`; `source` names it in errors. Raises ModelNotUsable if it is damaged."""
        try:
            tensors, notes = unseal(content)
            if not (notes["step"].isascii() and notes["step"].isdecimal() and len(notes["step"]) < 16):
                raise ValueError(f"its step is {notes['step']!r:.100}")
            precisions = tuple(notes.get("precisions", "").split())
            return cls(int(notes["step"]), parse_object(notes["settings"]), tensors, precisions)
        except INVALID as error:
            raise ModelNotUsable(f"the checkpoint is damaged ({error})", where=source, remedy=_remedy()) from None

    def to_bytes(self) -> bytes:
        """The content of `checkpoint.safetensors`."""
        notes = {"step": str(self.step), "settings": json.dumps(self.settings, sort_keys=True)}
        return sealed(self.tensors, notes | {"precisions": " ".join(self.precisions)})

    def restore(self, model: Autoencoder, optimizer: torch.optim.Optimizer, extras: Extras = _NO_EXTRAS) -> None:
        """Restore the weights, the optimiser's state and that of extra losses; raises ModelNotUsable unless they fit.

        Moments get the optimiser's memory layout, because fused optimisers pair moments and parameters element by element.
        """
        try:
            model.load_state_dict(under(_MODEL, self.tensors))
            restore_state(optimizer, under(_OPTIMIZER, self.tensors))
            extras.restore(under(_EXTRA, self.tensors))
        except INVALID as error:
            reason = first_line(error)
            raise ModelNotUsable(
                f"the checkpoint of step {self.step} does not fit its settings ({reason})", remedy=_remedy()
            ) from None


def _remedy() -> str:
    return f"restore it from a copy, or train anew with {option('resume', False)}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 1) -> None:
    """Replace the folder's checkpoint; with `keep` above 1, also keep the last `keep` by step.

    Raises WriteFailed, and then the previous checkpoint stays.
    """
    content = checkpoint.to_bytes()
    publish(folder / CHECKPOINT_NAME, content)
    _keep_copy(folder, checkpoint.step, content, keep)


def load_checkpoint(folder: Path, keep: int = 1) -> Checkpoint | None:
    """The folder's checkpoint, or None if there is none; raises ModelNotUsable if it is damaged or lost while others are kept.

    With `keep` above 1, it is also added to the kept ones, if a kill prevented that before.
    """
    file = folder / CHECKPOINT_NAME
    if not files.exists(file):
        if kept := kept_checkpoints(folder):
            raise ModelNotUsable(
                f"is missing, though {kept[-1].relative_to(folder)} is kept",
                where=file,
                remedy=f"copy that one here to continue from it, or train anew with {option('resume', False)}",
            )
        return None
    content = read_file(file)
    checkpoint = Checkpoint.from_bytes(content, str(file))
    if keep > 1:
        _keep_copy(folder, checkpoint.step, content, keep)
    return checkpoint


def kept_checkpoints(folder: Path) -> list[Path]:
    """The kept checkpoints, without the one to continue from, in the order of their steps."""
    names = files.names(folder / KEPT_FOLDER, folder)
    return [folder / KEPT_FOLDER / name for name in names if fnmatch(name, "step_*.safetensors")]


def discard_kept(folder: Path) -> None:
    """Delete the kept checkpoints of a training that is replaced."""
    for file in kept_checkpoints(folder):
        remove(file, folder)


def sealed(tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> bytes:
    """A safetensors file of tensors and notes, with a SHA-256 over both in its metadata."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata=notes | {"sha256": _digest(contiguous, notes)})


def unseal(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and notes of a file from `sealed`; raises one of `INVALID` if it is damaged."""
    notes = dict(metadata(content))
    tensors = safetensors.torch.load(content)
    if notes.pop("sha256", None) != _digest(tensors, notes):
        raise ValueError("its SHA-256 is not the one that it was saved with")
    return tensors, notes


def _digest(tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> str:
    """Hexadecimal, over each tensor's name, dtype, shape and bytes, and over the notes."""
    sha256 = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _keep_copy(folder: Path, step: int, content: bytes, keep: int) -> None:
    copy = folder / KEPT_FOLDER / _kept_name(step)
    if keep > 1 and not (files.size(copy, folder) == len(content) and read_file(copy, folder) == content):
        with named_failure(copy.parent):
            files.make_folder(copy.parent)
        publish(copy, content, folder)
    _discard_kept_but(folder, step, keep)


def _discard_kept_but(folder: Path, step: int, keep: int) -> None:
    """Keep the latest `keep` checkpoints (none if `keep` is 1) and delete the others, and those of steps that were undone."""
    kept = kept_checkpoints(folder)
    staying = [file for file in kept if file.name <= _kept_name(step)][-keep:] if keep > 1 else []
    for file in set(kept) - set(staying):
        remove(file, folder)


def _kept_name(step: int) -> str:
    return f"step_{step:07d}.safetensors"
