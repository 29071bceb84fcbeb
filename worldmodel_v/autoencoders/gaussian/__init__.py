"""The VAE of world models: a diagonal Gaussian for each frame, its networks, likelihoods, losses and health."""

from worldmodel_v.autoencoders.artifact import LoadedVAE, TrainedOn, load_vae, save_vae
from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName
from worldmodel_v.autoencoders.gaussian.losses import Elbo, elbo, gaussian_kl
from worldmodel_v.autoencoders.gaussian.vae import VAE, Likelihood, Posterior, VAEConfig

__all__ = [
    "VAE",
    "ArchitectureName",
    "Elbo",
    "Likelihood",
    "LoadedVAE",
    "Posterior",
    "TrainedOn",
    "VAEConfig",
    "elbo",
    "gaussian_kl",
    "load_vae",
    "save_vae",
]
