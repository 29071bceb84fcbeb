"""Finds a network's weights in a trainer's file, by the network's own names and shapes.

A trainer nests the weights (`state_dict`, `model`, …), puts a prefix before their names (`actor.`, `policy.net.`), or wraps
modules (`torch.compile`, DistributedDataParallel). A reading is a dict inside the file and a prefix under which stand exactly
the network's names, each with its shape. Rejected: a list of known nestings and prefixes, which the next trainer is not in.

What stands under other prefixes may be other networks, such as a critic, and is left out. But where a reading is a layer of a
larger network (a member of a numbered sequence, or a single layer beside others), all of that counts as what does not fit.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from worldmodel_v.errors import PolicyNotUsable

WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""The names under which torch's wrappers (compile, parallel, sharded, checkpointed) hold what they wrap."""

MAX_NESTING = 4
MAX_PREFIX = 16
"""How many parts of a name may be the prefix."""

NUM_NAMED = 3
LAST = "\U0010ffff"
"""Sorts behind every character of a name."""


@dataclass(frozen=True)
class Reading:
    """One way to read a file's weights: a dict inside the file, and a prefix."""

    title: str
    """The name of the place in messages, as in state_dict['actor.*']."""

    weights: dict[str, Any]
    """The weights there, by the network's names; by the file's own names if the network lacks them."""


def fitting_weights(stored: Any, network: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The weights of `stored` by the names of `network`, a state dict; raises PolicyNotUsable unless one reading fits.

    `where` begins the error's message. Readings of equal weights count as one.
    """
    readings = [reading for path, weights in _dicts(stored) for reading in _readings(path, weights, network)]
    fitting = [reading for reading in readings if not _misfits(reading.weights, network)]
    if not fitting:
        closest = max(readings, key=lambda reading: _num_fitting(reading.weights, network), default=Reading("the top", {}))
        raise PolicyNotUsable(
            f"{where} does not fit the network: {_misfits(closest.weights, network)}"
            f" (read at {closest.title}); build the network that was saved, or save the state_dict of this one"
        )
    different = _different(fitting)
    if len(different) > 1:
        raise PolicyNotUsable(
            f"{where} has several sets of weights that fit the network, at "
            f"{', '.join(reading.title for reading in different)}; "
            "save the state_dict of the one to use in a file of its own"
        )
    return fitting[0].weights


def _dicts(
    stored: Any, path: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every dict inside a file, by its path, with the weights directly in it; once where it stands at several paths."""
    seen = set() if seen is None else seen
    if not isinstance(stored, Mapping) or len(path) > MAX_NESTING or id(stored) in seen:
        return
    seen.add(id(stored))
    named = {name: value for name, value in stored.items() if isinstance(name, str)}
    weights = {name: value for name, value in named.items() if _is_weight(name, value)}
    if weights or not path:
        yield path, weights
    for name, value in named.items():
        if name not in weights:
            yield from _dicts(value, (*path, name), seen)


def _readings(path: tuple[str, ...], weights: dict[str, Any], network: Mapping[str, Any]) -> Iterator[Reading]:
    """A dict's weights under each prefix that stands before some name of the network, and what that cannot be without."""
    names = _unwrapped_names(network)
    prefixes = {""} | {prefix for stored in weights for prefix, rest in _splits(stored) if _unwrapped(rest) in names}
    ordered = sorted(weights)
    for prefix in sorted(prefixes):
        there = ordered[bisect_left(ordered, prefix) : bisect_left(ordered, prefix + LAST)]
        under = {stored: names.get(_unwrapped(stored[len(prefix) :])) for stored in there}
        under |= dict.fromkeys(_layers_beside(prefix, there, ordered))
        if len(set(under.values()) - {None}) == sum(name is not None for name in under.values()):
            yield Reading(_title(path, prefix), {name or stored: weights[stored] for stored, name in under.items()})


def _layers_beside(prefix: str, there: list[str], stored: list[str]) -> list[str]:
    """Where weights under a prefix are a layer, the names of all others in the network that it is of; otherwise none.

    `there` are the sorted names under the prefix, `stored` those of the whole dict.
    """
    parent, _, part = prefix.removesuffix(".").rpartition(".")
    if not part or part in WRAPPERS:
        return []
    above = f"{parent}." if parent else ""
    others = [name for name in stored if name.startswith(above) and not name.startswith(prefix)]
    if part.isdecimal():
        others = [name for name in others if name.removeprefix(above).partition(".")[0].isdecimal()]
    elif any("." in _unwrapped(name.removeprefix(prefix)) for name in there):
        return []
    return others


def _unwrapped_names(network: Mapping[str, Any]) -> dict[str, str]:
    """The network's names, by the names without wrappers; by themselves if two would become one."""
    names = {_unwrapped(name): name for name in network}
    return names if len(names) == len(network) else {name: name for name in network}


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """a.b.c: ("a.", "b.c"), ("a.b.", "c")."""
    parts = name.split(".")
    return ((".".join(parts[:i]) + ".", ".".join(parts[i:])) for i in range(1, min(len(parts), MAX_PREFIX + 1)))


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _title(path: tuple[str, ...], prefix: str) -> str:
    place = ".".join(path)
    return f"{place}['{prefix}*']" if prefix else place or "the top"


def _is_weight(name: str, value: Any) -> bool:
    return isinstance(value, torch.Tensor) or name.endswith("_extra_state")


def _shape(value: Any) -> tuple[int, ...] | None:
    """None if any shape is allowed: state of a user's own class, and parameters that get their shape from the first input."""
    if not isinstance(value, torch.Tensor) or torch.nn.parameter.is_lazy(value):
        return None
    return tuple(value.shape)


def _num_fitting(weights: dict[str, Any], network: Mapping[str, Any]) -> int:
    return sum(name in network and not _differ(value, network[name]) for name, value in weights.items())


def _differ(value: Any, wanted: Any) -> bool:
    shapes = _shape(value), _shape(wanted)
    return None not in shapes and shapes[0] != shapes[1]


def _misfits(weights: dict[str, Any], network: Mapping[str, Any]) -> str:
    """Why weights do not fit, with a few names of each kind; "" if they fit."""
    wrong = [
        f"{name} (file {_shape(value)}, network {_shape(network[name])})"
        for name, value in weights.items()
        if name in network and _differ(value, network[name])
    ]
    kinds = {
        "missing": [name for name in network if name not in weights],
        "unexpected": [name for name in weights if name not in network],
        "wrong shape": wrong,
    }
    return "; ".join(f"{kind} {some_names(names)}" for kind, names in kinds.items() if names)


def some_names(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(f"{name:.100}" for name in names[:NUM_NAMED]) + more


def _different(readings: list[Reading]) -> list[Reading]:
    """The readings without those that repeat another's weights, NUM_NAMED at most."""
    different: list[Reading] = []
    for reading in readings:
        if len(different) < NUM_NAMED and not any(_equal(reading.weights, other.weights) for other in different):
            different.append(reading)
    return different


def _equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(_same(value, second[name]) for name, value in first.items())


def _same(first: Any, second: Any) -> bool:
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return first is second
    return first.dtype == second.dtype and torch.equal(first, second)
