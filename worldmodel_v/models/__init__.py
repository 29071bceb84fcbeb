"""The VAE, its likelihoods and losses, and its weights on disk. Needs torch, numpy and safetensors only."""

from worldmodel_v.models.architectures import ArchitectureName
from worldmodel_v.models.device import resolve_device
from worldmodel_v.models.losses import Elbo, elbo, gaussian_kl
from worldmodel_v.models.vae import VAE, Likelihood, Posterior, VAEConfig, frames_to_input, output_to_frames
from worldmodel_v.models.weights import LoadedVAE, TrainedOn, load_vae, save_vae

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
    "frames_to_input",
    "gaussian_kl",
    "load_vae",
    "output_to_frames",
    "resolve_device",
    "save_vae",
]
