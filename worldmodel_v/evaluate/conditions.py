"""What a conditional VAE is told beside the frame: the one place of this package that knows where it comes from.

Legend: n rows, K size of the condition.
"""

import numpy as np
import torch

from worldmodel_v.errors import ConfigError
from worldmodel_v.models import ConvVAE
from worldmodel_v.storage import Shard


def condition_names(model: ConvVAE) -> tuple[str, ...]:
    """The state factors, or "action", that the VAE is conditioned on; empty for a VAE without condition."""
    return tuple(getattr(model.config, "condition", ()))


def condition_rows(shard: Shard, model: ConvVAE, start: int, stop: int) -> np.ndarray:
    """The condition of rows `start` to `stop`: float32 (n, K), K = 0 for a VAE without condition.

    The final row's missing action counts as 0. Raises ConfigError if the shard does not record a factor.
    """
    names = condition_names(model)
    parts = [_named(shard, name, model, start, stop) for name in names]
    return np.concatenate([np.zeros((stop - start, 0), np.float32), *parts], axis=1)


def as_arguments(condition_BK: np.ndarray, device: torch.device) -> tuple[torch.Tensor, ...]:
    """What `encode` and `decode` take after their first argument: the condition, or nothing where there is none."""
    return (torch.from_numpy(condition_BK).to(device),) if condition_BK.shape[1] else ()


def _named(shard: Shard, name: str, model: ConvVAE, start: int, stop: int) -> np.ndarray:
    if name == "action":
        return _actions(shard.rows("action", start, stop), model)
    if name not in shard.state_names:
        recorded = ", ".join(shard.state_names) or "nothing"
        raise ConfigError(
            f"{shard.source}: the VAE is conditioned on {name!r}, the state there holds {recorded}; "
            "give the rollouts that it was trained on"
        )
    return shard.rows("state", start, stop)[:, [shard.state_names.index(name)]]


def _actions(action: np.ndarray, model: ConvVAE) -> np.ndarray:
    if action.ndim == 2:
        return np.nan_to_num(action, nan=0.0)
    size = int(getattr(model.config, "condition_dim", 0)) - (len(condition_names(model)) - 1)
    return (action[:, None] == np.arange(size)).astype(np.float32)
