"""The optimisers of `--optimizer`, by name or as `module:factory`, and their state as tensors.

A user's own factory is called as `factory(parameters, learning_rate=…, weight_decay=…)` and returns a
`torch.optim.Optimizer` over all of these parameters, whose `step()` needs no closure. Everything in it that changes must be in
its `state` or its `param_groups`, as tensors and numbers. A checkpoint keeps these, so that a training resumes exactly.
To find out what an optimiser keeps, a copy of it takes one step with gradients of zero. So the code depends on no names of
moments, and still refuses a checkpoint unless its names, shapes and dtypes are right. For a short time this needs a second
copy of the weights and moments.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from worldmodel_v.autoencoders.registry import sha256_of_own
from worldmodel_v.errors import ConfigError, one_line
from worldmodel_v.own_modules import load_own

State = dict[str, Any]
"""Tensors and numbers by name: `0.exp_avg` for the first parameter, `group.0.eps` for the first group."""

SGD_MOMENTUM = 0.9


def _adamw(parameters: Iterable[torch.nn.Parameter], *, learning_rate: float, weight_decay: float) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def _sgd(parameters: Iterable[torch.nn.Parameter], *, learning_rate: float, weight_decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=learning_rate, weight_decay=weight_decay, momentum=SGD_MOMENTUM)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": _adamw, "sgd": _sgd}


def find_optimizer(name: str) -> Callable[..., Optimizer]:
    """The factory of an optimiser, by its name or as `module:factory`; raises ConfigError."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    _, separator, attribute = name.partition(":")
    if not separator:
        raise ConfigError("unknown", field="optimizer", got=name, expected=f"one of {', '.join(OPTIMIZERS)}, or module:factory")
    refusal = partial(ConfigError, field="optimizer", got=name, expected="module:factory on the Python path")
    factory = load_own(name, lambda why: refusal(f"cannot be loaded: {why}"))
    if not callable(factory):
        raise ConfigError(
            f"{attribute} is not callable", field="optimizer", got=name, expected="a factory that returns an optimiser"
        )
    return factory


def build_optimizer(name: str, model: torch.nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """The optimiser over the model's parameters; raises ConfigError unless training and resuming with it are possible."""
    factory = find_optimizer(name)
    if name in OPTIMIZERS:
        return factory(model.parameters(), learning_rate=learning_rate, weight_decay=weight_decay)
    try:
        optimizer = factory(list(model.parameters()), learning_rate=learning_rate, weight_decay=weight_decay)
    except Exception as error:
        raise ConfigError(
            f"cannot be built: {one_line(error)}; it is called as factory(parameters, learning_rate=…, weight_decay=…)",
            field="optimizer",
            got=name,
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"returned a {type(optimizer).__name__}", field="optimizer", got=name, expected="a torch.optim.Optimizer"
        )
    if {id(p) for p in _parameters(optimizer)} != {id(p) for p in model.parameters()}:
        raise ConfigError("must be over all parameters that it is given, and no others", field="optimizer", got=name)
    try:
        state_after_a_step(optimizer)
    except Exception as error:
        raise ConfigError(
            f"cannot be resumed: {one_line(error)}; its step() needs no argument, and its state consists of tensors and "
            "numbers",
            field="optimizer",
            got=name,
        ) from error
    return optimizer


def source_of(name: str) -> dict[str, str]:
    """What a training records with the name of a user's own optimiser: the SHA-256 of its code; raises ConfigError."""
    own = "" if name in OPTIMIZERS else sha256_of_own(find_optimizer(name), name)
    return {"optimizer_sha256": own} if own else {}


def state_of(optimizer: Optimizer) -> State:
    """What changes in an optimiser, without the learning rate, which is a function of the step; raises ConfigError
    if a value is neither a tensor nor a number."""
    state: State = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, torch.Tensor | int | float):
                raise ConfigError(f"the optimiser's state {key!r} is a {type(value).__name__}, expected a tensor or a number")
            state[f"{number}.{key}"] = value
    if unknown := [key for key in optimizer.state if not isinstance(key, torch.Tensor)]:
        raise ConfigError(f"the optimiser's state {unknown[0]!r} belongs to no parameter")
    for number, group in enumerate(optimizer.param_groups):
        numbers = {key: value for key, value in group.items() if type(value) in (int, float) and key not in _RATES}
        state |= {f"group.{number}.{key}": value for key, value in numbers.items()}
    return state


_RATES = {"lr", "initial_lr"}


def as_tensors(state: State) -> dict[str, torch.Tensor]:
    """The state with its numbers as 0-dim tensors: float64, int64 or bool."""
    return {name: value if isinstance(value, torch.Tensor) else _number(value) for name, value in state.items()}


def restore_state(optimizer: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore the tensors of `as_tensors`. Raises ValueError unless each parameter has everything that its optimiser keeps, or
    nothing, in the right shapes and dtypes. The memory layout becomes the optimiser's.
    """
    expected = state_after_a_step(optimizer)
    parameters = _parameters(optimizer)
    for name, tensor in tensors.items():
        if name not in expected:
            raise ValueError(f"optimizer.{name} is unknown")
        model = as_tensors({name: expected[name]})[name]
        if (tensor.shape, tensor.dtype) != (model.shape, model.dtype):
            raise ValueError(f"optimizer.{name} has the shape {list(tensor.shape)} and the dtype {tensor.dtype}")
    begun = {name.partition(".")[0] for name in tensors} | {"group"}
    if missing := [name for name in expected if name.partition(".")[0] in begun and name not in tensors]:
        raise ValueError(f"optimizer.{missing[0]} is missing")
    for name, tensor in tensors.items():
        own = expected[name]
        value = torch.empty_like(own).copy_(tensor) if isinstance(own, torch.Tensor) else tensor.item()
        place, key = name.split(".", 1)
        if place == "group":
            number, key = key.split(".", 1)
            optimizer.param_groups[int(number)][key] = value
        else:
            optimizer.state[parameters[int(place)]][key] = value


def state_after_a_step(optimizer: Optimizer) -> State:
    """The state of a copy of the optimiser after a step with gradients of zero; the optimiser itself does not change."""
    twin = object.__new__(type(optimizer))
    twin.__dict__ = copy.deepcopy(optimizer.__dict__)
    for parameter in _parameters(twin):
        parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return state_of(twin)


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _number(value: float) -> torch.Tensor:
    dtype = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64
    return torch.tensor(value, dtype=dtype, device="cpu")
