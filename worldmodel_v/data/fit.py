"""Checking that a VAE fits rollouts: their frame size, and its condition."""

from pathlib import Path

from worldmodel_v.autoencoders import Autoencoder, Trained
from worldmodel_v.data.conditions import require_recorded
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.preprocessing import frame_size_text
from worldmodel_v.storage import Rollouts
from worldmodel_v.surface import option


def require_fit(vae: Trained[Autoencoder], rollouts: Rollouts, vae_path: Path, otherwise: str) -> None:
    """Raise ModelNotUsable if the VAE was trained on frames of another size than the rollouts', and ModelNotUsable if the
    rollouts lack a value of its condition. `otherwise` is a second remedy for the size, for the message."""
    wanted, found = vae.model.config.frame_shape, (rollouts.spec.frame_height, rollouts.spec.frame_width)
    if wanted != found:
        raise ModelNotUsable(
            f"the VAE takes {wanted[0]}x{wanted[1]} frames, {rollouts.name} holds {found[0]}x{found[1]}",
            where=vae_path,
            remedy=f"collect with {option('frame_size', frame_size_text(*wanted))}, or {otherwise}",
        )
    with rollouts.open_shard(rollouts.entries[0]) as shard:
        require_recorded(shard, vae.model.config.condition)
