"""Policies that act on the environment's own observation, and not on the frame."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.policies.test_onnx import write_mean_of_channels
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.envs import make_image_env
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy, next_action
from worldmodel_v.storage import open_dataset

FRAME = np.zeros((4, 4, 3), np.uint8)
OBSERVATION = np.array([0.5, -2.0, 1.0], np.float32)


class Leaning:
    """Pushes CartPole's cart to where the pole leans."""

    acts_on = "observation"

    def __init__(self, env: gymnasium.Env) -> None:
        pass

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, observation: np.ndarray) -> int:
        return int(observation[2] > 0)


class Brightest(Leaning):
    """Acts on the frame, and says so."""

    acts_on = "frame"

    def act(self, frame: np.ndarray) -> int:
        return int(frame.shape[-1] == 3)


class Mistaken(Leaning):
    acts_on = "obs"


class Numbers(torch.nn.Module):
    """A network of a user's own, on numbers."""

    acts_on = "observation"

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x_13: torch.Tensor) -> torch.Tensor:
        return x_13 * self.factor


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        (f"{__name__}:Leaning", {}),
        (f"{__name__}:Leaning", {"frame_skip": 2, "frame_skip_pool": "max"}),
        (f"mixture(mixture({__name__}:Leaning))", {"wrap": ("gymnasium.wrappers:FlattenObservation",)}),
    ],
)
def test_the_observation_beside_each_frame_is_acted_on(tmp_path: Path, policy: str, changes: dict[str, Any]) -> None:
    settings = {"frames": "render", "record": ("observation",), "frame_size": 8, "episodes": 2, "max_steps": 20, **changes}
    collect(CollectConfig(out=tmp_path, env="CartPole-v1", policy=policy, workers=0, **settings))
    for number in range(2):
        columns = open_dataset(tmp_path).episode(number).columns
        leans = columns["observation"][:-1, 2] > 0
        np.testing.assert_array_equal(columns["action"][:-1], leans)
        assert leans.any()
        assert not leans.all()


def test_a_mixture_acts_on_what_the_drawn_policy_acts_on() -> None:
    policy = make_policy(f"mixture({__name__}:Leaning, {__name__}:Brightest)", gymnasium.make("CartPole-v1"))
    actions = set()
    for seed in range(20):
        policy.reset(np.random.default_rng(seed))
        actions.add((policy.chosen.rpartition(":")[2], next_action(policy, FRAME, -OBSERVATION)))  # type: ignore[attr-defined]
    assert actions == {("Leaning", 0), ("Brightest", 1)}


def test_after_a_random_start_the_observation_is_the_frame_there() -> None:
    env = make_image_env("CarRacing-v3", {})
    first = env.reset(1)
    policy = make_policy("random-start(driver)", env.gym)
    moved = env.begin(policy, np.random.default_rng(0), first, "random-start(driver)")
    env.close()
    assert env.seen[0] is moved
    assert (moved != first).any()


def test_anything_else_to_act_on_is_refused() -> None:
    text = f"policy '{__name__}:Mistaken': acts_on is 'obs'; set it to 'frame' (the default) or 'observation'"
    with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
        make_policy(f"{__name__}:Mistaken", gymnasium.make("CartPole-v1"))


def test_a_checkpoint_whose_network_says_so_gets_the_observation(tmp_path: Path) -> None:
    torch.save({"factor": torch.tensor([1.0, 2.0, 4.0])}, tmp_path / "w.pt")
    policy = make_policy(f"checkpoint:{__name__}:Numbers:{tmp_path}/w.pt", gymnasium.make("Pendulum-v1"))
    np.testing.assert_array_equal(next_action(policy, FRAME, OBSERVATION.astype(np.float64)), [0.5, -4.0, 4.0])


def test_an_onnx_network_gets_the_observation_if_it_is_asked_for(tmp_path: Path) -> None:
    write_mean_of_channels(tmp_path / "p.onnx")
    policy = make_policy(f"onnx:{tmp_path}/p.onnx(observation=1)", gymnasium.make("Pendulum-v1"))
    observation_CHW = np.arange(12).reshape(3, 2, 2)
    np.testing.assert_array_equal(next_action(policy, FRAME, observation_CHW), [1.5, -11.0, 38.0])
