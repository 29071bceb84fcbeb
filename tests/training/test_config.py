"""What `wm-train` refuses to be asked for, and which settings make a training what it is."""

import json
import re
from pathlib import Path

import pytest

from worldmodel_v.errors import ConfigError
from worldmodel_v.training import TrainConfig


def config(**changes: object) -> TrainConfig:
    return TrainConfig(data=Path("data"), out=Path("out"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"free_bits": -0.1}, "free_bits: expected at least 0, got -0.1"),
        ({"kl_tolerance": float("nan")}, "kl_tolerance: expected a finite number, at most 1e+30, got nan"),
        ({"beta": float("inf")}, "beta: expected a finite number, at most 1e+30, got inf"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a finite number, at most 1e+30, got inf"),
        ({"free_bits": 1e31}, "free_bits: expected a finite number, at most 1e+30, got 1e+31"),
        (
            {"max_grad_norm": float("inf")},
            "max_grad_norm: expected a finite number, got inf; give a large one, such as 1e9, to never clip",
        ),
        ({"beta_warmup_steps": 10**24}, f"beta_warmup_steps: expected a number below 2^63, got {10**24}"),
        ({"seed": 2**63}, f"seed: expected a number below 2^63, got {2**63}"),
        ({"beta_cycles": 0}, "beta_cycles: expected at least 1, got 0"),
        ({"sigma": 0.0}, "sigma: expected a positive number, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate: expected a positive number, got -1.0"),
        (
            {"sigma": 0.1, "likelihood": "calibrated"},
            "sigma=0.1: is for likelihood='gaussian'; calibrated has no fixed one; leave it out",
        ),
        (
            {"sigma": 0.1, "likelihood": "bernoulli"},
            "sigma=0.1: is for likelihood='gaussian'; bernoulli has no fixed one; leave it out",
        ),
        (
            {"free_bits": 0.1, "kl_tolerance": 0.5},
            "free_bits=0.1: holds up the same KL as kl_tolerance; choose one",
        ),
        (
            {"beta": 0.0, "kl_tolerance": 0.5},
            "beta=0: leaves the KL out, so free_bits and kl_tolerance have nothing to hold up",
        ),
        (
            {"beta_cycles": 4, "beta_warmup_steps": 0},
            "beta_cycles=4: needs beta_warmup_steps, the steps of each rise",
        ),
        (
            {"beta_cycles": 4, "beta_warmup_steps": 100, "steps": 699},
            "beta_cycles=4: 100 rising and as many resting steps of each need 700 steps, steps is 699; "
            "ask for more, or lower beta_warmup_steps",
        ),
        ({"condition": ("step", "action", "step")}, "condition=('step', 'action', 'step'): names 'step' twice"),
        (
            {"address": "auto"},
            "address='auto': one worker trains here, on no cluster; ask for more num_workers, or leave it out",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        config(**{"likelihood": "gaussian", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "gaussian", "sigma": 0.1, "free_bits": 0.1, "beta": 0.5},
        {"kl_tolerance": 0.5, "beta_cycles": 4, "beta_warmup_steps": 100, "steps": 700},
        {"beta": 0.0},
    ],
)
def test_what_makes_sense_together_is_taken(changes: dict[str, object]) -> None:
    assert config(**changes).identity().items() >= changes.items() - {("steps", 700)}


def test_the_identity_is_what_json_keeps_of_it() -> None:
    identity = config(condition=("step", "action")).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["condition"] == ["step", "action"]
