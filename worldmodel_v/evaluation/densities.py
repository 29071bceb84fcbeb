"""Densities that are fitted to latents, as float64 distributions of PyTorch: they have gradients, which filled holes need.

Legend: N frames, Z latent.
"""

import warnings

import numpy as np
import torch
from torch import nn
from torch.distributions import AffineTransform, Categorical, Distribution, MixtureSameFamily, MultivariateNormal
from torch.distributions import TransformedDistribution as Transformed

from worldmodel_v.device import torch_threads

SMALLEST_VARIANCE = 1e-4

FLOW_TRANSFORMS, FLOW_WIDTHS = 3, (64, 64)
FLOW_STEPS, FLOW_EPOCHS, FLOW_BATCH, FLOW_LEARNING_RATE = 500, 40, 256, 2e-3


def fit_mixture(z_NZ: np.ndarray, components: int, seed: int) -> Distribution:
    """A mixture of Gaussians with full covariance, by expectation maximisation; of one component, the Gaussian itself."""
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(components, reg_covar=SMALLEST_VARIANCE, init_params="k-means++", random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # that it has not converged, which its likelihood shows
        mixture.fit(z_NZ)
    weights, means, covariances = map(torch.from_numpy, (mixture.weights_, mixture.means_, mixture.covariances_))
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


def fit_flow(z_NZ: np.ndarray, seed: int) -> Distribution:
    """A masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057, equations 3 to 5) over standardised latents.

    Three layers, each z_i = u_i exp(α_i) + μ_i with μ_i and α_i from a network of the values before.
    """
    import zuko

    mean, std = z_NZ.mean(axis=0), np.sqrt(z_NZ.var(axis=0) + SMALLEST_VARIANCE)
    standardised = torch.from_numpy((z_NZ - mean) / std).float()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch_threads(1):  # small networks gain nothing by more
        torch.manual_seed(seed)
        flow = zuko.flows.MAF(z_NZ.shape[1], transforms=FLOW_TRANSFORMS, hidden_features=FLOW_WIDTHS)
        _maximise_likelihood(flow, standardised)
    density = flow.double().requires_grad_(requires_grad=False)()
    return Transformed(density, [AffineTransform(torch.from_numpy(mean), torch.from_numpy(std), event_dim=1)])


def _maximise_likelihood(flow: nn.Module, z_NZ: torch.Tensor) -> None:
    """Of minibatches, by Adam, with a step size that falls to zero."""
    steps = max(1, min(FLOW_STEPS, FLOW_EPOCHS * len(z_NZ) // FLOW_BATCH))
    optimizer = torch.optim.Adam(flow.parameters(), FLOW_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = z_NZ[torch.randint(len(z_NZ), (min(FLOW_BATCH, len(z_NZ)),))]
        loss = -flow().log_prob(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
