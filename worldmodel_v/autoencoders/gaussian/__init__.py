"""The VAE of world models: a diagonal Gaussian for each frame, its networks, likelihoods, losses and health."""

from pathlib import Path

from worldmodel_v.autoencoders import artifact
from worldmodel_v.autoencoders.artifact import Trained
from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName
from worldmodel_v.autoencoders.gaussian.losses import Elbo, elbo
from worldmodel_v.autoencoders.gaussian.posterior import Posterior, gaussian_kl, posterior_of
from worldmodel_v.autoencoders.gaussian.settings import Likelihood, VAESettings
from worldmodel_v.autoencoders.gaussian.vae import VAE, VAEConfig, gaussian_latents
from worldmodel_v.errors import ModelNotUsable

__all__ = [
    "VAE",
    "ArchitectureName",
    "Elbo",
    "Likelihood",
    "Posterior",
    "VAEConfig",
    "VAESettings",
    "elbo",
    "gaussian_kl",
    "gaussian_latents",
    "load_vae",
    "posterior_of",
]


def load_vae(path: str | Path) -> Trained[VAE]:
    """The VAE in a directory that `wm-train` wrote; raises ModelNotUsable if there is none, or another."""
    path = Path(path)
    content = artifact.read_weights(path)
    if (kind := artifact.kind_of(content, str(path))) != VAE.kind:
        raise ModelNotUsable(
            f"its autoencoder is {kind}; this needs a VAE, with mu and logvar, as wm-train trains by default", where=path
        )
    found = artifact.from_bytes(content, str(path))
    assert isinstance(found.model, VAE)
    return Trained(found.model, found.sha256, found.trained_on)
