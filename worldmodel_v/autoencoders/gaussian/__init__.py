"""The VAE of world models: a diagonal Gaussian for each frame, its networks, likelihoods, losses and health.

`vae` has one vector of latents, `spatial` a map of them, `ladder` two levels.
"""

from pathlib import Path

from worldmodel_v.autoencoders import artifact
from worldmodel_v.autoencoders.artifact import Trained
from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName
from worldmodel_v.autoencoders.gaussian.losses import Elbo, elbo
from worldmodel_v.autoencoders.gaussian.posterior import Posterior, gaussian_kl, posterior_of
from worldmodel_v.autoencoders.gaussian.settings import GaussianSettings, Likelihood, VAESettings
from worldmodel_v.autoencoders.gaussian.vae import VAE, GaussianAutoencoder, VAEConfig, gaussian_latents
from worldmodel_v.autoencoders.registry import BUILT_IN, autoencoder_class
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.settings import local_path

__all__ = [
    "VAE",
    "ArchitectureName",
    "Elbo",
    "GaussianAutoencoder",
    "GaussianSettings",
    "Likelihood",
    "Posterior",
    "VAEConfig",
    "VAESettings",
    "elbo",
    "gaussian_kl",
    "gaussian_latents",
    "is_vae",
    "load_vae",
    "posterior_of",
]


def is_vae(kind: str) -> bool:
    """Whether an autoencoder of this package has Gaussian latents, by its name for `--autoencoder`."""
    return kind in BUILT_IN and issubclass(autoencoder_class(kind), GaussianAutoencoder)


def load_vae(path: str | Path) -> Trained[GaussianAutoencoder]:
    """The VAE (gaussian, spatial or ladder) in a directory that `wm-train` wrote.

    Raises ModelNotUsable if there is none, or another autoencoder.
    """
    path = local_path(path)
    content = artifact.read_weights(path)
    if not is_vae(kind := artifact.kind_of(content, str(path))):
        raise ModelNotUsable(
            f"its autoencoder is {kind}; this needs a VAE, with mu and logvar, as wm-train trains by default", where=path
        )
    found = artifact.from_bytes(content, str(path))
    assert isinstance(found.model, GaussianAutoencoder)
    return Trained(found.model, found.sha256, found.trained_on)
