"""The spaces of a model of Stable-Baselines3 against those of the environment, and observations as its networks take them.

The zip has readable copies of a space's attributes. A space is compared, and named in messages, by its title: kind, shape and
dtype, on which the inputs and outputs of a network depend. Bounds are compared for actions only, because they scale actions.
"""

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import Space, spaces
from torch.nn.functional import one_hot

from worldmodel_v.policies.sb3_zip import ONNX_INSTEAD, SavedModel
from worldmodel_v.surface import option

KIND = re.compile(r"<class 'gym(?:nasium)?\.spaces\.\w+\.(\w+)'>")
SIZES = {"Discrete": "n", "MultiDiscrete": "nvec", "MultiBinary": "_shape"}
MAX_TEXT = 100_000
"""Characters: an array of more than 1,000 numbers is shown without most of them."""


def require_same_spaces(saved: SavedModel, env: gymnasium.Env, *, normalized: bool) -> None:
    """Raise PolicyNotUsable unless the model was trained on the environment's observations and actions.

    `normalized` says that the user takes care of VecNormalize, whose statistics are not in the zip.
    """
    recorded = {name: _recorded_title(saved, name) for name in ("observation_space", "action_space")}
    for name, space in (("observation_space", env.observation_space), ("action_space", env.action_space)):
        if recorded[name] not in (_title(space), _title_with_channels_first(space)):
            raise saved.refusal(f"its {name} is {recorded[name]}, the environment's {_title(space)}", _remedy())
    if isinstance(env.action_space, spaces.Box):
        _require_same_bounds(saved, env.action_space)
    is_normalized = saved.is_on_policy and saved.data.get("_last_original_obs") is not None
    if is_normalized and not normalized and not is_picture(env.observation_space):
        raise saved.refusal(
            "it was trained within VecNormalize, whose statistics are not in the zip",
            f"normalise the observations in a wrapper ({option('wrap')}), unless VecNormalize left them alone, and say "
            "normalized=1",
        )


def _remedy() -> str:
    return f"wrap the environment as it was in training ({option('wrap')})"


def is_picture(space: Space) -> bool:
    """Whether Stable-Baselines3 takes its values for pixels, and divides them by 255."""
    is_of_bytes = isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8
    return is_of_bytes and bool((space.low == 0).all() and (space.high == 255).all())


def encoder(space: Space, saved: SavedModel) -> Callable[[Any], torch.Tensor]:
    """What makes float32 (1, …) of an observation: numbers as they are, choices one-hot, pictures (1, C, H, W) in [0, 1]."""
    match space:
        case spaces.Discrete():
            return lambda observation: _one_hot(observation, space.n)
        case spaces.MultiDiscrete():
            return lambda observation: torch.cat([_one_hot(*each) for each in zip(observation, space.nvec, strict=True)], dim=1)
    axes = (2, 0, 1) if _recorded_title(saved, "observation_space") != _title(space) else range(len(space.shape or ()))
    divisor = 255.0 if is_picture(space) and saved.policy_kwargs.normalize_images else None

    def encode(observation: Any) -> torch.Tensor:
        values = torch.from_numpy(np.array(observation).transpose(axes).copy())[None].float()
        return values if divisor is None else values / divisor

    return encode


def _one_hot(value: Any, num_classes: Any) -> torch.Tensor:
    return one_hot(torch.tensor([int(value)]), int(num_classes)).float()


def _recorded_title(saved: SavedModel, name: str) -> str:
    record: Any = saved.data.get(name)
    try:
        kind = match[1] if (match := KIND.fullmatch(record[":type:"])) else record[":type:"]
        if kind == "Box":
            return _box(record["_shape"], record["dtype"])
        if kind in SIZES:
            return _choices(kind, _numbers(record[SIZES[kind]]))
    except (KeyError, OverflowError, TypeError, ValueError):
        raise saved.refusal(f"its {name} cannot be read: {record!r:.100}", "save the model again") from None
    raise saved.refusal(f"its {name} is {kind:.100}, expected Box, {', '.join(SIZES)}", ONNX_INSTEAD)


def _title(space: Space) -> str:
    match space:
        case spaces.Box():
            return _box(space.shape, space.dtype)
        case spaces.Discrete():
            return _choices("Discrete", space.n)
        case spaces.MultiDiscrete():
            return _choices("MultiDiscrete", space.nvec)
        case spaces.MultiBinary():
            return _choices("MultiBinary", space.shape)
    return type(space).__name__


def _title_with_channels_first(space: Space) -> str | None:
    """For a picture (H, W, C), which Stable-Baselines3 transposes before it records its space; None for all else."""
    return _box((space.shape[2], *space.shape[:2]), space.dtype) if is_picture(space) else None


def _box(shape: Any, dtype: Any) -> str:
    return f"Box({', '.join(f'{size}' for size in shape)}) of {dtype}"


def _choices(kind: str, sizes: Any) -> str:
    return f"{kind}({', '.join(f'{int(size)}' for size in np.ravel(sizes))})"


def _require_same_bounds(saved: SavedModel, space: spaces.Box) -> None:
    record = saved.data["action_space"]
    for name, bound in (("low", space.low), ("high", space.high)):
        try:
            is_same = np.allclose(_numbers(record[name]), bound.ravel(), rtol=1e-5)
        except (KeyError, ValueError):
            is_same = False
        if not is_same:
            raise saved.refusal(f"its actions have the {name} {record.get(name)!s:.100}, the environment's {bound}", _remedy())


def _numbers(text: Any) -> np.ndarray:
    """The numbers of an array, or of one number, as `str` shows them; raises ValueError where it leaves some out."""
    if len(str(text)) > MAX_TEXT:
        raise ValueError
    return np.array(re.sub(r"[\[\](),]", " ", str(text)).split(), np.float64)
