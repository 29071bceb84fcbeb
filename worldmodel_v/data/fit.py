"""Whether a VAE and rollouts belong together."""

from pathlib import Path

from worldmodel_v.data.conditions import require_recorded
from worldmodel_v.errors import ModelMismatch
from worldmodel_v.models import LoadedVAE
from worldmodel_v.storage import Dataset


def require_fit(vae: LoadedVAE, rollouts: Dataset, vae_path: Path, otherwise: str) -> None:
    """Raise ModelMismatch unless the VAE was trained on frames of the rollouts' size, and ConditionNotRecorded unless the
    rollouts record what it is conditional on. `otherwise` is what else a user may do about the size."""
    wanted, found = vae.model.config.frame_size, rollouts.spec["frame_size"]
    if wanted != found:
        raise ModelMismatch(
            f"{vae_path}: the VAE takes {wanted}x{wanted} frames, {rollouts.path} holds {found}x{found}; "
            f"collect with --frame-size {wanted}, or {otherwise}"
        )
    with rollouts.open_shard(rollouts.entries[0]) as shard:
        require_recorded(shard, vae.model.config.condition)
