"""Every autoencoder that the package has, small and with fresh weights, and frames for it to learn."""

from typing import Any

import torch

from worldmodel_v.autoencoders import Autoencoder, Batch, registry
from worldmodel_v.autoencoders.gaussian import is_vae
from worldmodel_v.autoencoders.tokens import Tokenizer

KINDS = [*registry.BUILT_IN]
VAES = [name for name in KINDS if is_vae(name)]
TOKENIZERS = [name for name in KINDS if issubclass(registry.autoencoder_class(name), Tokenizer)]
SMALL_TOKENIZERS: dict[str, dict[str, Any]] = {
    "fsq": {"levels": (5, 5, 4), "token_grid": 4},
    "vq": {"codebook_size": 100, "code_dim": 8, "token_grid": 4},
    "categorical": {"num_categoricals": 8, "num_classes": 12},
}
"""Settings for frames of 16x16."""


def made(kind: str, **changes: Any) -> Autoencoder:
    """One with fresh weights, for frames of 16x16."""
    torch.manual_seed(0)
    own = {"beta_warmup_steps": 0} if kind in VAES else SMALL_TOKENIZERS[kind]
    settings = {"frame_height": 16, "frame_width": 16, **own, **changes}
    return registry.create(kind, registry.autoencoder_class(kind).config_class(**settings))


def frames(count: int = 6, height: int = 16, width: int = 16) -> torch.Tensor:
    """float (B, 3, H, W): a square on a plain ground, both of colours and at places of their own."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, height, width).clone()
    for i in range(count):
        top, left = (int(torch.randint(0, side - 6, (), generator=generator)) for side in (height, width))
        x[i, :, top : top + 6, left : left + 6] = torch.rand(3, 1, 1, generator=generator)
    return x


def batch_of(model: Autoencoder, x: torch.Tensor, step: int = 0, condition: torch.Tensor | None = None) -> Batch:
    shape = model.noise_shape
    noise = None if shape is None else torch.randn(len(x), *shape, generator=torch.Generator().manual_seed(step))
    return Batch(x, condition, noise, step, lambda mean: mean)


def psnr_of_learned_by_heart(kind: str, steps: int, **changes: Any) -> float:
    """In dB, over a handful of frames that a model has seen again and again."""
    model, x = made(kind, **changes).train(), frames()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(batch_of(model, x, step)).minimised.backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.eval().decode(model.encode(x)) - x).square().mean()
    return float(-10 * torch.log10(error))
