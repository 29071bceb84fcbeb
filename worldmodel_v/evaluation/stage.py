"""An autoencoder and held-out frames in; figures, pictures and one page out: the whole of `wm-eval`, top to bottom.

`metrics.json` is written last, and removed first when an evaluation is repeated: a directory that has it is complete. The page
and the pictures of the old evaluation are removed with it, so they never mix with those of the new one.
"""

import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel_v import __version__
from worldmodel_v.autoencoders import Autoencoder, Trained, load
from worldmodel_v.autoencoders.artifact import Training, read_training
from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder
from worldmodel_v.data import Split
from worldmodel_v.data.fit import require_fit
from worldmodel_v.device import resolve_device
from worldmodel_v.errors import DatasetBusy, ModelFailed, OutputNotUsable, PackageMissing
from worldmodel_v.evaluation.analysis import Fidelity, Findings, GaussianFindings, Material, TokenFindings, analyse
from worldmodel_v.evaluation.coder import Coder, GaussianCoder
from worldmodel_v.evaluation.config import EvalConfig
from worldmodel_v.evaluation.curves import read_curves
from worldmodel_v.evaluation.factors import require_recorded
from worldmodel_v.evaluation.figures import Figure, all_figures
from worldmodel_v.evaluation.metrics import score_frames, ssim
from worldmodel_v.evaluation.report import Provenance, render
from worldmodel_v.evaluation.sample import Sample, choose_holdout, has_trained_on, read_sample
from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.process import plain_tensors
from worldmodel_v.profiles import profile_of
from worldmodel_v.progress import Progress
from worldmodel_v.selection import open_rollouts
from worldmodel_v.storage import Rollouts, files
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.directory import read_object, refuse_foreign_names
from worldmodel_v.storage.lock import LOCK_NAME, locked_directory
from worldmodel_v.storage.publish import publish, remove, remove_temporaries
from worldmodel_v.surface import option

PACKAGES = {"jinja2": "jinja2", "scikit-learn": "sklearn", "torchmetrics": "torchmetrics", "zuko": "zuko"}
"""Libraries that only an evaluation needs, and their modules."""

METRICS_NAME = "metrics.json"
PAGE_NAME = "report.html"
PICTURE_NAMES = tuple(f"{name}.png" for name in all_figures(seed=0))
OWN_NAMES = {METRICS_NAME, PAGE_NAME, LOCK_NAME, *PICTURE_NAMES}
"""The names that the directory of an evaluation may contain."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The headline figures of an evaluation, on held-out frames."""

    num_frames: int
    num_episodes: int
    psnr_db: float
    ssim: float
    without_zoom: Fidelity | None
    """The same without the rows in which the camera zooms in (CarRacing's first 50); None for other environments."""

    squared_error: float
    elbo_nats: float | None = None
    """This and the following fields, down to `mig`, are for a VAE; None for other autoencoders."""

    bits_per_dimension: float | None = None
    kl_nats: float | None = None
    active_units: int | None = None
    latent_dim: int | None = None
    prior_kl_nats: float | None = None
    """How far the aggregated posterior is from the prior."""

    sap: float | None = None
    mig: float | None = None
    """None if no state is recorded, or no factor varies."""

    perplexity: float | None = None
    """This and the following fields are for tokens; None for other autoencoders."""

    dead_codes: int | None = None
    num_codes: int | None = None
    entropy_bits: float | None = None
    """What is used of a frame's capacity."""

    capacity_bits: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What a run of `evaluate` found and did."""

    out: Path
    page: Path
    vae_sha256: str
    did_nothing: bool
    """Whether the evaluation was complete already."""

    summary: Summary


@plain_tensors()
@raised_again_if_lost()
def evaluate(config: EvalConfig, progress: Progress | None = None) -> EvaluationReport:
    """Write the evaluation of `config.vae` on the held-out episodes of `config.data` to `config.out`.

    Raises UsageError (PackageMissing, OutputNotUsable, ModelNotUsable, DatasetNotUsable, ConfigError, ShardDamaged) before
    anything is written, ModelFailed if the autoencoder gives NaN, WriteFailed if the disk fails.
    """
    require_packages()
    progress = shown(progress)
    device = resolve_device(config.device)
    dataset = open_rollouts(config.data, progress)
    vae = load(config.vae, config.autoencoder)
    require_fit(vae, dataset, config.vae, "give the rollouts that it was trained on")
    training = read_training(config.vae)
    holdout_every = choose_holdout(config.holdout_every, training, dataset)
    identity = _identity(config, vae, dataset, holdout_every)
    _refuse_foreign_directory(config.out, identity)
    if (complete := _published(config.out, identity)) is not None:
        return _finished(config.out, complete, progress, did_nothing=True)

    sample = read_sample(dataset, vae.model, holdout_every=holdout_every, limit=config.frames, progress=progress)
    require_recorded(sample, config.factors)
    scores = score_frames(vae.model, sample.frames, device, progress, sample.condition, {"ssim": ssim}, config.seed)
    _require_finite(scores, sample, config.vae)
    coder = _coder(vae.model, device)
    findings, material = analyse(sample, scores, coder, config, profile_of(dataset.spec.env), progress)
    figures, left_out = _draw(findings, material, config.seed, progress)
    metrics = _metrics(identity, vae, training, findings, left_out)
    provenance = _provenance(config, vae, dataset, training, identity)
    page = render(findings, figures, left_out, provenance, material.units, read_curves(config.vae))

    with locked_directory(config.out) as lock:
        _refuse_foreign_directory(config.out, identity)
        if _published(config.out, identity) is not None:
            what = "another process has written this evaluation there meanwhile"
            raise DatasetBusy(what, where=config.out, remedy="let one run at a time write there")
        lock.require_own()
        _publish(config.out, figures, page, metrics)
    return _finished(config.out, metrics, progress, did_nothing=False)


def require_packages() -> None:
    """Raise PackageMissing if a library of evaluation alone is not installed."""
    for name, module in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise PackageMissing(
                f"an evaluation needs {name}, which is not installed", remedy="pip install 'worldmodel_v[eval]'"
            )


# Checks of the inputs and of the directory


def _identity(config: EvalConfig, vae: Trained[Autoencoder], dataset: Rollouts, holdout_every: int) -> dict[str, Any]:
    """What determines an evaluation: the same values give the same figures."""
    return {
        "vae_sha256": vae.sha256,
        "data_spec_hash": dataset.spec_hash,
        "data_rows": dataset.num_rows,
        "holdout_every": holdout_every,
        "frames": config.frames,
        "prior": config.prior,
        "factors": list(config.factors),
        "seed": config.seed,
        "worldmodel_v": __version__,
    }


def _refuse_foreign_directory(out: Path, identity: dict[str, Any]) -> None:
    """Raise OutputNotUsable unless `out` is absent, empty, or an evaluation of this VAE and data."""
    whose = "an evaluation of this VAE and data"
    refuse_foreign_names(out, OWN_NAMES, "an evaluation", whose)
    there = (read_object(out / METRICS_NAME) or {}).get("identity", identity)
    for name, what in {"vae_sha256": "of the VAE", "data_spec_hash": "on the data"}.items():
        if there.get(name) != identity[name]:
            raise OutputNotUsable(
                f"holds an evaluation {what} {str(there.get(name))[:12]}…, asked is {identity[name][:12]}…",
                where=out,
                remedy="give a new directory",
            )


# The work


def _coder(model: Autoencoder, device: torch.device) -> Coder:
    return GaussianCoder(model, device) if isinstance(model, GaussianAutoencoder) else Coder(model, device)


def _require_finite(scores: Scores, sample: Sample, path: Path) -> None:
    """Raise ModelFailed, naming the first frame, unless every figure is finite."""
    for name, values in {**scores.latents, **scores.measures}.items():
        broken = ~torch.isfinite(values.reshape(len(sample), -1)).all(dim=1)
        if broken.any():
            first = int(broken.nonzero()[0])
            raise ModelFailed(
                f"{name} is NaN or infinite for {int(broken.sum())} of {len(sample)} frames, first in episode "
                f"{sample.episode[first]}, row {sample.row[first]}; its weights are not usable",
                where=path,
                remedy=f"train again, with a lower {option('learning_rate', stage='train')} or "
                f"{option('precision', 'fp32', stage='train')}",
            )


def _draw(findings: Findings, material: Material, seed: int, progress: Progress) -> tuple[list[Figure], dict[str, str]]:
    """The figures, and the reasons for figures that are left out."""
    drawers = all_figures(seed)
    figures: list[Figure] = []
    left_out: dict[str, str] = {}
    task = progress.task("draw", len(drawers), "pictures")
    for name, draw in drawers.items():
        drawn = draw(findings, material)
        if isinstance(drawn, Figure):
            figures.append(drawn)
        else:
            left_out[name] = drawn
        task.advance()
    task.close()
    if isinstance(findings, GaussianFindings) and findings.disentanglement is None:
        left_out["SAP and MIG"] = "no recorded state factor varies over these frames"
    return figures, left_out


# Results on disk


def _metrics(
    identity: dict[str, Any], vae: Trained[Autoencoder], training: Training, findings: Findings, left_out: dict[str, str]
) -> dict[str, Any]:
    """The content of `metrics.json`, without its list of files."""
    found = asdict(findings)
    return {
        "identity": identity,
        "summary": asdict(_summary(findings)),
        "autoencoder": vae.model.kind,
        "model": asdict(vae.model.config),
        "training": {**training._asdict(), "on_this_data": training.data_spec_hash == identity["data_spec_hash"]},
        **found,
        "left_out": left_out,
    }


def _summary(findings: Findings) -> Summary:
    of_all: dict[str, Any] = {
        "num_frames": findings.heldout["num_frames"],
        "num_episodes": len(findings.episodes),
        "psnr_db": findings.fidelity.psnr_db,
        "ssim": findings.fidelity.ssim,
        "without_zoom": findings.without_zoom,
        "squared_error": findings.fidelity.squared_error,
    }
    if isinstance(findings, TokenFindings):
        names = ("perplexity", "dead_codes", "num_codes", "entropy_bits", "capacity_bits")
        return Summary(**of_all, **{name: getattr(findings.codes, name) for name in names})
    if not isinstance(findings, GaussianFindings):
        return Summary(**of_all)
    found = findings.disentanglement
    return Summary(
        **of_all,
        elbo_nats=findings.bound.elbo_nats,
        bits_per_dimension=findings.bound.bits_per_dimension,
        kl_nats=findings.bound.kl_nats,
        active_units=int(findings.heldout["active_units"]),
        latent_dim=int(findings.heldout["latent_dim"]),
        prior_kl_nats=findings.aggregated.kl_nats,
        sap=found.sap if found else None,
        mig=found.mig if found else None,
    )


def _provenance(
    config: EvalConfig, vae: Trained[Autoencoder], dataset: Rollouts, training: Training, identity: dict[str, Any]
) -> Provenance:
    split = Split(dataset, identity["holdout_every"])
    heldout = [
        episode
        for entry in dataset.entries
        for episode in range(entry.first_episode, entry.end_episode)
        if split.is_held_out(episode)
    ]
    return Provenance(
        vae=str(config.vae),
        kind=vae.model.kind,
        data=dataset.name,
        env=dataset.spec.env,
        policy=dataset.spec.policy,
        heldout_episodes=len(heldout),
        training_steps=training.steps,
        losses=training.losses,
        trained_on_this=has_trained_on(training, dataset),
        identity=identity,
        model=asdict(vae.model.config),
        versions={"worldmodel_v": __version__, "torch": torch.__version__, "numpy": np.__version__},
    )


def _publish(out: Path, figures: list[Figure], page: str, metrics: dict[str, Any]) -> None:
    """Pictures and page, and last the metrics with the hash of each file."""
    remove_temporaries(out, out)
    for name in (METRICS_NAME, PAGE_NAME, *PICTURE_NAMES):
        remove(out / name)
    contents = {**{f"{figure.name}.png": figure.png for figure in figures}, PAGE_NAME: page.encode()}
    for name, content in contents.items():
        publish(out / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    publish(out / METRICS_NAME, (json.dumps({**metrics, "files": hashes}, indent=2, allow_nan=False) + "\n").encode())


def _published(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of exactly this evaluation if all its files are in place; otherwise None."""
    metrics = read_object(out / METRICS_NAME)
    if metrics is None or metrics.get("identity") != identity:
        return None
    hashes = metrics.get("files")
    if not isinstance(hashes, dict) or not hashes.keys() <= OWN_NAMES:
        return None
    in_place = all(files.size(out / name) and sha256_of_file(out / name, out) == sha256 for name, sha256 in hashes.items())
    return metrics if in_place else None


def _finished(out: Path, metrics: dict[str, Any], progress: Progress, *, did_nothing: bool) -> EvaluationReport:
    report = _report(out, metrics, did_nothing=did_nothing)
    message = f"eval: {report.summary.num_frames} held-out frames, {report.page}"
    progress.event("finished", message, stage="eval", out=out, did_nothing=did_nothing, **asdict(report.summary))
    return report


def _report(out: Path, metrics: dict[str, Any], *, did_nothing: bool) -> EvaluationReport:
    summary = dict(metrics["summary"])
    without_zoom = summary.pop("without_zoom")
    return EvaluationReport(
        out=out,
        page=out / PAGE_NAME,
        vae_sha256=metrics["identity"]["vae_sha256"],
        did_nothing=did_nothing,
        summary=Summary(without_zoom=Fidelity(**without_zoom) if without_zoom else None, **summary),
    )
