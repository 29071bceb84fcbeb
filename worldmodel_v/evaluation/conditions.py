"""The condition of a conditional VAE in evaluation: always an array, with no columns for autoencoders without a condition.

Legend: n rows, K size of the condition.
"""

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.data import condition_reader
from worldmodel_v.storage import Shard


def condition_rows(shard: Shard, model: Autoencoder, start: int, stop: int) -> np.ndarray:
    """The condition of rows `start` to `stop`: float32 (n, K), K = 0 for a VAE without condition.

    Raises ModelNotUsable if the shard does not record a factor.
    """
    read = condition_reader(model.config.condition, model.config.condition_dim)
    return read(shard, start, stop) if read else np.zeros((stop - start, 0), np.float32)


def as_arguments(condition_BK: np.ndarray, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The further arguments of `encode` and `decode`: the condition, or nothing if there is none."""
    return (torch.from_numpy(condition_BK).to(device),) if condition_BK.shape[1] else ()
