"""What a training publishes: pictures on the way; at its end weights, configuration, picture and figures.

`heldout.json` is written last and records its steps, settings, data and weights. If any of them differs, the directory is not
finished, and is published again from the checkpoint.
"""

import copy
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, TrainedOn, registry, save
from worldmodel_v.autoencoders.artifact import CONFIG_NAME, WEIGHTS_NAME
from worldmodel_v.autoencoders.base import Figures
from worldmodel_v.autoencoders.declared import require_same_from_file
from worldmodel_v.data import FrameBatch
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.evaluation import evaluate_frames, reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluation.metrics import model_input
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.origins import collections_of
from worldmodel_v.progress import Progress
from worldmodel_v.storage import files
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.directory import read_object
from worldmodel_v.storage.publish import named_failure, publish, remove
from worldmodel_v.training.best import BEST_NAME, load_best
from worldmodel_v.training.run import TrainingRun

HELDOUT_NAME = "heldout.json"
PICTURE_NAME = "reconstructions.png"
SAMPLES_FOLDER = "samples"
FINAL_EVALUATION_FRAMES = 2000
PICTURE_FRAMES = 10


def read_evaluation(out: Path) -> dict[str, Any] | None:
    """What `heldout.json` holds; None if it is missing or damaged."""
    return read_object(out / HELDOUT_NAME)


def published_evaluation(run: TrainingRun) -> Figures | None:
    """The held-out figures of exactly this training if everything that it publishes is in place; otherwise None."""
    out = run.config.out
    content = read_evaluation(out)
    in_place = all(files.size(out / name) is not None for name in (WEIGHTS_NAME, CONFIG_NAME, PICTURE_NAME))
    if content is None or not in_place:
        return None
    expected = {**_identity(run), "vae_sha256": sha256_of_file(out / WEIGHTS_NAME, out)}
    try:
        matches = all(content.get(name) == value for name, value in expected.items())
        return dict(content["heldout"]) if matches else None
    except (KeyError, TypeError, ValueError):
        return None


def publish_vae(run: TrainingRun, progress: Progress) -> Figures:
    """Evaluate on the held-out episodes, and publish weights, configuration, picture and, last, the evaluation.

    The weights are the last step's, or with `publish` best those of `best.safetensors`; raises ModelNotUsable if it is
    not there.
    """
    out = run.config.out
    model, step = (run.model, run.step) if run.config.publish == "last" else _best_model(run)
    probe = run.heldout_frames(FINAL_EVALUATION_FRAMES)
    heldout = evaluate_frames(model, probe.frames, run.device, progress, probe.condition)
    if model.kind not in registry.BUILT_IN:
        few = evenly_spaced(len(probe.frames), PICTURE_FRAMES)
        condition = None if probe.condition is None else torch.from_numpy(probe.condition[few]).to(run.device)
        require_same_from_file(model, model_input(model, probe.frames[few], run.device), condition)
    spec = run.dataset.spec
    weights = save(model, TrainedOn(spec.env, spec.preprocessing, run.config.holdout_every, collections_of(spec)))
    identity = _identity(run) | {"weights_of_step": step}
    about = {"autoencoder": model.kind, "model": asdict(model.config)}
    publish(out / PICTURE_NAME, to_png(_picture(model, probe, run.device)))
    publish(out / CONFIG_NAME, _json({**about, **identity, "precisions": run.precisions, "data": spec.settings()}))
    publish(out / WEIGHTS_NAME, weights)
    vae_sha256 = hashlib.sha256(weights).hexdigest()
    publish(out / HELDOUT_NAME, _json({**identity, "vae_sha256": vae_sha256, "heldout": heldout}))
    return heldout


def draw_progress(run: TrainingRun, probe: FrameBatch) -> dict[str, bytes]:
    """Publish pictures of reconstructions and of samples from the prior, named by step; returns their bytes (PNG)."""
    folder = run.config.out / SAMPLES_FOLDER
    with named_failure(folder):
        files.make_folder(folder)
    drawn = {"reconstructions": to_png(_picture(run.model, probe, run.device))}
    prior = sample_grid(run.model, rows=2, columns=PICTURE_FRAMES, seed=run.config.seed)
    if prior is not None:
        drawn["prior"] = to_png(prior)
    for name, png in drawn.items():
        publish(folder / f"step_{run.step:07d}_{name}.png", png, run.config.out)
    return drawn


def discard_pictures_after(step: int, out: Path) -> None:
    """Delete the pictures of later steps, which were undone."""
    for name in files.names(out / SAMPLES_FOLDER, out):
        found = re.fullmatch(r"step_(\d{7,})_[a-z]+\.png", name)
        if found and int(found[1]) > step:
            remove(out / SAMPLES_FOLDER / name, out)


def best_settings(run: TrainingRun) -> dict[str, Any]:
    """What two evaluations must have in common to be compared: the training's settings and the rows of its data."""
    return run.settings | {"data_rows": run.dataset.num_rows}


def _best_model(run: TrainingRun) -> tuple[Autoencoder, int]:
    best = load_best(run.config.out)
    if best is None or best.settings != best_settings(run) or best.step > run.step:
        raise ModelNotUsable(
            f"holds no {BEST_NAME} of this training and data, up to its step",
            where=run.config.out,
            remedy="publish the last weights instead",
        )
    model = copy.deepcopy(run.model)
    model.load_state_dict(best.weights)
    return model, best.step


def _picture(model: Autoencoder, probe: FrameBatch, device: torch.device) -> np.ndarray:
    """Some of the frames, evenly spaced, above their reconstructions."""
    picked = evenly_spaced(len(probe.frames), PICTURE_FRAMES)
    condition = None if probe.condition is None else probe.condition[picked]
    return reconstruction_grid(model, probe.frames[picked], device, condition)


def _identity(run: TrainingRun) -> dict[str, Any]:
    return {"steps": run.step, "publish": run.config.publish, "training": run.settings, "data_rows": run.dataset.num_rows}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
