"""What a directory is: a rollout dataset, a latent dataset or a VAE, as plain facts for a screen or a program."""

from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import ConfigError, NotADataset, NotAModel, StaleLatents, VerificationFailed
from worldmodel_v.progress import Progress
from worldmodel_v.storage import Dataset, open_dataset, verify
from worldmodel_v.storage.dataset import SPEC_NAME
from worldmodel_v.storage.schema import LATENTS, ROLLOUTS

MODEL_NAMES = ("vae.safetensors", "checkpoint.safetensors")
PREVIEW_EPISODES = 6
PREVIEW_FRAMES = 10


def describe(path: Path) -> dict[str, Any]:
    """The facts of a dataset or model directory, as JSON values; raises UsageError if it is neither or is damaged."""
    if (path / SPEC_NAME).exists():
        return _describe_dataset(open_dataset(path))
    if any((path / name).exists() for name in MODEL_NAMES):
        return _describe_model(path)
    found = "no such directory" if not path.is_dir() else f"neither {SPEC_NAME} nor {MODEL_NAMES[0]} is in it"
    raise NotADataset(f"{path}: {found}; give a directory that wm-collect, wm-train or wm-encode wrote")


def require_intact(path: Path, progress: Progress | None = None) -> str:
    """Verify every byte and row of a dataset, and say what was checked; raises VerificationFailed with every finding."""
    dataset = _require_dataset(path, "--verify")
    if findings := verify(dataset, progress):
        raise VerificationFailed("\n".join(findings))
    return f"{len(dataset.entries)} shards, {dataset.num_episodes} episodes, {dataset.num_rows} rows: every byte as indexed"


def require_binding(latents_path: Path, *, data: Path | None, vae: Path | None) -> None:
    """Raise StaleLatents unless the latents were made from these rollouts and by this VAE (each checked if given)."""
    latents = open_dataset(latents_path)
    if latents.format != LATENTS:
        raise NotADataset(f"{latents_path}: expected latents to compare with --data or --vae, found {latents.format}")
    if vae is not None:
        from worldmodel_v.models import load_vae

        sha256 = load_vae(vae).sha256
        if latents.spec["vae_sha256"] != sha256:
            made_by = latents.spec["vae_sha256"]
            raise StaleLatents(
                f"{latents_path}: was made by the VAE {made_by[:12]}…, {vae} holds {sha256[:12]}…; encode into a new directory"
            )
    if data is not None:
        from worldmodel_v.encode.stage import require_current

        require_current(latents, open_dataset(data))


def preview(path: Path) -> np.ndarray:
    """A picture of frames of some episodes, one row each, evenly spaced in time: uint8 (H, W, 3)."""
    from worldmodel_v.evaluate.grids import frame_grid

    dataset = _require_dataset(path, "--preview")
    if dataset.format != ROLLOUTS:
        raise ConfigError(f"--preview needs frames, {path} holds latents; give the rollouts that they were made from")
    if not dataset.num_episodes:
        raise NotADataset(f"{path}: the dataset is empty; run wm-collect first")
    episode_ids = [entry.first_episode + i for entry in dataset.entries for i in range(entry.num_episodes)]
    picked = np.linspace(0, len(episode_ids) - 1, min(PREVIEW_EPISODES, len(episode_ids))).astype(int)
    rows = []
    for position in picked:
        pixels = dataset.episode(episode_ids[position]).pixels
        rows.append(pixels[np.linspace(0, len(pixels) - 1, PREVIEW_FRAMES).astype(int)])
    return frame_grid(rows)


def _require_dataset(path: Path, option: str) -> Dataset:
    if not (path / SPEC_NAME).exists() and any((path / name).exists() for name in MODEL_NAMES):
        raise NotADataset(f"{option} is for datasets, {path} holds a VAE; leave it out")
    return open_dataset(path)


def _describe_dataset(dataset: Dataset) -> dict[str, Any]:
    from worldmodel_v.evaluate.coverage import driving

    lengths: list[np.ndarray] = []
    returns: list[np.ndarray] = []
    columns: dict[str, str] = {}
    ends = {"terminated": 0, "truncated": 0}
    state_names: tuple[str, ...] = ()
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            lengths.append(shard.ep_len - 1)
            returns.append(shard.returns)
            columns = {name: _column_text(dtype, shape) for name, (dtype, shape) in shard.columns.items()}
            state_names = shard.state_names
            for name in ends:
                ends[name] += int(shard.rows(name).sum())
    num_bytes = sum(entry.bytes for entry in dataset.entries)
    return {
        "kind": dataset.format.split("/")[1],
        "path": str(dataset.path),
        "episodes": dataset.num_episodes,
        "rows": dataset.num_rows,
        "shards": len(dataset.entries),
        "bytes": num_bytes,
        "bytes_per_row": round(num_bytes / dataset.num_rows, 1) if dataset.num_rows else None,
        "steps_per_episode": _spread(lengths),
        "return": _spread(returns),
        "ends": ends,
        "columns": columns,
        "state_names": list(state_names),
        "driving": driving(dataset),
        "settings": dataset.spec,
        "spec_hash": dataset.spec_hash,
    }


def _describe_model(path: Path) -> dict[str, Any]:
    from worldmodel_v.models import load_vae
    from worldmodel_v.train.best import load_best
    from worldmodel_v.train.checkpoint import kept_checkpoints, load_checkpoint
    from worldmodel_v.train.publication import read_evaluation

    checkpoint = load_checkpoint(path)
    facts: dict[str, Any] = {"kind": "vae", "path": str(path)}
    facts["checkpoint_step"] = checkpoint.step if checkpoint else None
    facts["kept_checkpoints"] = [file.name for file in kept_checkpoints(path)]
    best = load_best(path)
    facts["best"] = {"step": best.step, "elbo_nats": round(best.elbo_nats, 2)} if best else None
    try:
        vae = load_vae(path)
    except NotAModel:
        if (path / MODEL_NAMES[0]).exists() or checkpoint is None:
            raise
        return facts | {"finished": False, "settings": checkpoint.settings}
    published = read_evaluation(path) or {}
    parameters = sum(parameter.numel() for parameter in vae.model.parameters())
    facts |= {"finished": True, "vae_sha256": vae.sha256, "parameters": parameters, "steps": published.get("steps")}
    facts["weights_of_step"] = published.get("weights_of_step")
    facts["model"] = vars(vae.model.config)
    facts["held_out"] = published.get("heldout")
    return facts | {"settings": checkpoint.settings if checkpoint else None}


def _column_text(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    return f"{dtype} ({', '.join(['rows', *map(str, shape[1:])])})"


def _spread(parts: list[np.ndarray]) -> dict[str, float] | None:
    if not parts:
        return None
    values = np.concatenate(parts)
    return {name: round(float(getattr(values, name)()), 3) for name in ("min", "mean", "max")}
