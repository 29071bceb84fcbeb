"""Checking that a VAE fits rollouts: their frame size, and its condition."""

from pathlib import Path

from worldmodel_v.autoencoders import Autoencoder, Trained
from worldmodel_v.data.conditions import require_recorded
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.preprocessing import frame_size_text
from worldmodel_v.storage import Rollouts
from worldmodel_v.surface import option


def require_fit(vae: Trained[Autoencoder], rollouts: Rollouts, vae_path: Path, otherwise: str) -> None:
    """Raise ModelNotUsable if the VAE was trained on frames of another size than the rollouts, or on ones resized or cropped
    otherwise, or if the rollouts lack a value of its condition. `otherwise` is a second remedy for the frames, for the message.

    Crops are compared for one environment: those of two have nothing in common."""
    wanted, found = vae.model.config.frame_shape, (rollouts.spec.frame_height, rollouts.spec.frame_width)
    if wanted != found:
        raise ModelNotUsable(
            f"the VAE takes {wanted[0]}x{wanted[1]} frames, {rollouts.name} holds {found[0]}x{found[1]}",
            where=vae_path,
            remedy=f"collect with {option('frame_size', frame_size_text(*wanted))}, or {otherwise}",
        )
    _require_same_preprocessing(vae, rollouts, vae_path, otherwise)
    with rollouts.open_shard(rollouts.entries[0]) as shard:
        require_recorded(shard, vae.model.config.condition)


def _require_same_preprocessing(vae: Trained[Autoencoder], rollouts: Rollouts, vae_path: Path, otherwise: str) -> None:
    if vae.trained_on is None:
        return
    its, here = vars(vae.trained_on.preprocessing), vars(rollouts.spec.preprocessing)
    same_env = vae.trained_on.env == rollouts.spec.env
    names = [name for name in its if its[name] != here[name] and (name != "crop" or same_env)]
    if names:
        found = "; ".join(f"{name} is {its[name]!r} there, {here[name]!r} in {rollouts.name}" for name in names)
        raise ModelNotUsable(
            f"the VAE was trained on frames that were made otherwise: {found}",
            where=vae_path,
            remedy=f"collect with {', '.join(option(name, its[name]) for name in names)}, or {otherwise}",
        )
