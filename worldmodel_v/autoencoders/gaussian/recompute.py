"""How a step is computed. This changes its speed and its memory, but not its result.

- `--compile`: `torch.compile` of the objective. It fuses the reconstruction's elementwise arithmetic with the decoder. The
  noise is drawn between two graphs, so it is the same as without. Compiling takes half a minute on a CPU and needs a C++
  compiler there (on CUDA it needs Triton and is not measured yet), so it is not the default.
- `--checkpoint-activations`: the activations of encoder and decoder are not kept for the backward pass but computed
  again, one half at a time (Chen et al. 2016, arXiv:1604.06174): on a CPU 340 MB instead of 440 MB for 32 frames of
  256x256, a fifth slower. Smaller parts would save little more: a convolution keeps its input for its own gradient, and
  the largest layer alone is half of its half.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from worldmodel_v.autoencoders.gaussian.posterior import Posterior


class Recomputed:
    """A VAE whose activations are computed again in the backward pass; objectives use it like the VAE."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def posterior(self, *inputs: torch.Tensor | None) -> Posterior:
        """As the VAE's."""
        return checkpoint(self._model.posterior, *inputs, use_reentrant=False, preserve_rng_state=False)

    def decode_logits(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        """As the VAE's."""
        return checkpoint(self._model.decode_logits, *inputs, use_reentrant=False, preserve_rng_state=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
