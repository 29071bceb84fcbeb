"""Policies of Stable-Baselines3 from its zips: the same actions as that package's own `predict`, and no pickle is read."""

import base64
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy, policy_weights
from worldmodel_v.storage import open_dataset

NUMBERS = Box(-2, 2, (3,), np.float32)
WIDE = Box(-10, 10, (2, 2), np.float64)
PICTURE = Box(0, 255, (40, 48, 3), np.uint8)
STACK = Box(0, 255, (4, 44, 40), np.uint8)
STEER = Box(np.array([-1, 0], np.float32), np.array([1, 0.4], np.float32))
WHEELS = Box(-50, 50, (2,), np.float32)
ONE_ROW = {"buffer_size": 1}


class World(gymnasium.Env):
    """Observations and actions of given spaces."""

    def __init__(self, observation_space: Space, action_space: Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, True, {}


def lively(model: Any, seed: int = 0, scale: float = 3.0) -> Any:
    """A model whose actions differ from observation to observation; a new one hardly reacts to any."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.policy.named_parameters():
        if "log_std" not in name:
            deviation = scale / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.data = torch.randn(parameter.shape, generator=generator) * deviation
    return model


def made(algorithm: Any, policy: str, env: gymnasium.Env, **settings: Any) -> Any:
    return lively(algorithm(policy, env, device="cpu", seed=0, **settings))


def drawn(space: Space, count: int) -> list[Any]:
    """Observations; pictures with dark areas, since to a network one picture of noise is like another."""
    space.seed(1)
    samples = [space.sample() for _ in range(count)]
    if space not in (PICTURE, STACK):
        return samples
    areas = np.ix_(*(np.arange(side) // 20 for side in space.shape))
    return [sample * (np.random.default_rng(i).random((3, 3, 3)) < 0.4)[areas] for i, sample in enumerate(samples)]


CASES: dict[str, tuple[Any, str, Space, Space, dict[str, Any]]] = {
    "PPO, numbers": (PPO, "MlpPolicy", NUMBERS, STEER, {}),
    "PPO, doubles in a matrix": (PPO, "MlpPolicy", WIDE, Discrete(4), {}),
    "PPO, a choice": (PPO, "MlpPolicy", Discrete(7), Discrete(3), {}),
    "PPO, choices": (PPO, "MlpPolicy", MultiDiscrete([3, 5]), MultiDiscrete([4, 2, 3]), {}),
    "PPO, bits": (PPO, "MlpPolicy", MultiBinary(6), MultiBinary(5), {}),
    "PPO, picture": (PPO, "CnnPolicy", PICTURE, WHEELS, {}),
    "PPO, picture, layers behind": (PPO, "CnnPolicy", PICTURE, Discrete(5), {"policy_kwargs": {"net_arch": [16]}}),
    "PPO, two pictures' networks": (
        PPO,
        "CnnPolicy",
        STACK,
        Discrete(5),
        {"policy_kwargs": {"share_features_extractor": False}},
    ),
    "PPO, picture as it is": (PPO, "CnnPolicy", STACK, Discrete(5), {"policy_kwargs": {"normalize_images": False}}),
    "PPO, picture, flattened": (PPO, "MlpPolicy", PICTURE, Discrete(5), {}),
    "PPO, no layers": (PPO, "MlpPolicy", NUMBERS, STEER, {"policy_kwargs": {"net_arch": []}}),
    "PPO, other layers": (
        *(PPO, "MlpPolicy", NUMBERS, Discrete(6)),
        {"policy_kwargs": {"net_arch": {"pi": [8, 9, 10], "vf": [4]}, "activation_fn": torch.nn.ELU, "ortho_init": False}},
    ),
    "PPO, noise by state": (PPO, "MlpPolicy", NUMBERS, STEER, {"use_sde": True}),
    "PPO, noise by state, squashed": (
        *(PPO, "MlpPolicy", NUMBERS, STEER),
        {"use_sde": True, "policy_kwargs": {"squash_output": True, "full_std": False}},
    ),
    "A2C": (A2C, "MlpPolicy", NUMBERS, Discrete(6), {}),
    "DQN": (DQN, "MlpPolicy", NUMBERS, Discrete(6), ONE_ROW),
    "DQN, picture": (DQN, "CnnPolicy", STACK, Discrete(6), ONE_ROW),
    "SAC": (SAC, "MlpPolicy", NUMBERS, STEER, ONE_ROW),
    "SAC, picture": (SAC, "CnnPolicy", PICTURE, STEER, ONE_ROW),
    "SAC, noise by state": (SAC, "MlpPolicy", NUMBERS, STEER, {"use_sde": True, **ONE_ROW}),
    "SAC, noise by state, mean not clipped": (
        *(SAC, "MlpPolicy", NUMBERS, STEER),
        {"use_sde": True, "policy_kwargs": {"clip_mean": 0.0}, **ONE_ROW},
    ),
    "TD3": (TD3, "MlpPolicy", NUMBERS, STEER, ONE_ROW),
    "DDPG": (
        DDPG,
        "MlpPolicy",
        NUMBERS,
        STEER,
        {"policy_kwargs": {"net_arch": [16], "activation_fn": torch.nn.Tanh}, **ONE_ROW},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_actions_are_those_of_predict(tmp_path: Path, case: str) -> None:
    algorithm, policy, observations, actions, settings = CASES[case]
    model = made(algorithm, policy, World(observations, actions), **settings)
    model.save(tmp_path / "m.zip")
    rebuilt = make_policy(f"sb3:{tmp_path}/m.zip", World(observations, actions))
    rebuilt.reset(np.random.default_rng(0))
    seen = drawn(observations, 200 if policy == "MlpPolicy" else 50)
    expected = [model.predict(observation, deterministic=True)[0] for observation in seen]
    assert len({action.tobytes() for action in expected}) > 1
    for observation, action in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(rebuilt.act(observation), action)


@pytest.mark.parametrize(
    ("env_id", "algorithm", "settings"),
    [("Pendulum-v1", PPO, {}), ("CartPole-v1", PPO, {}), ("CartPole-v1", DQN, ONE_ROW), ("Pendulum-v1", SAC, ONE_ROW)],
)
def test_a_collection_is_driven_by_the_observation_while_frames_are_rendered(
    tmp_path: Path, env_id: str, algorithm: Any, settings: dict[str, Any]
) -> None:
    model = made(algorithm, "MlpPolicy", gymnasium.make(env_id), **settings)
    model.save(tmp_path / "m.zip")
    line = f"mixture(sb3:{tmp_path}/m.zip)"
    config = CollectConfig(out=tmp_path / "out", env=env_id, policy=line, frame_size=8, max_steps=40, workers=0, episodes=1)
    collect(config)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.spec.policy_weights == policy_weights(line)
    episode = dataset.episode(0)
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=episode.seed)
    for recorded in episode.action[:-1]:
        action = model.predict(observation, deterministic=True)[0]
        np.testing.assert_array_equal(recorded, action)
        observation, *_ = env.step(action)
    env.close()


# Actions that are drawn


def draws(file: Path, world: World, count: int, seed: int = 0) -> np.ndarray:
    policy = make_policy(f"sb3:{file}(deterministic=0)", world)
    policy.reset(np.random.default_rng(seed))
    observation = drawn(world.observation_space, 1)[0]
    return np.array([policy.act(observation) for _ in range(count)])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Any, World]]:
    """Saves a model as m.zip, and gives it with its world."""

    def save(algorithm: Any, observations: Space, actions: Space, **settings: Any) -> tuple[Any, World]:
        model = made(algorithm, "MlpPolicy", World(observations, actions), **settings)
        model.save(tmp_path / "m.zip")
        return model, World(observations, actions)

    return save


def test_drawn_actions_are_a_function_of_the_generator(tmp_path: Path, saved: Callable) -> None:
    _, world = saved(PPO, NUMBERS, WHEELS)
    first, again, other = (draws(tmp_path / "m.zip", world, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_drawn_numbers_have_the_mean_and_spread_of_the_model(tmp_path: Path, saved: Callable) -> None:
    model, world = saved(PPO, NUMBERS, WHEELS)
    count = 5000
    model.policy.log_std.data = torch.tensor([0.5, -1.0])
    model.save(tmp_path / "m.zip")
    chosen = draws(tmp_path / "m.zip", world, count)
    mean = model.predict(drawn(NUMBERS, 1)[0], deterministic=True)[0]
    std = np.exp([0.5, -1.0])
    assert (np.abs(chosen.mean(axis=0) - mean) < 5 * std / count**0.5).all()
    np.testing.assert_allclose(chosen.std(axis=0), std, rtol=5 / (2 * count) ** 0.5)


@pytest.mark.parametrize("actions", [Discrete(4), MultiDiscrete([4, 2]), MultiBinary(3)])
def test_drawn_choices_come_as_often_as_the_model_would_draw_them(tmp_path: Path, saved: Callable, actions: Space) -> None:
    model, world = saved(PPO, NUMBERS, actions)
    lively(model, scale=1.0).save(tmp_path / "m.zip")
    count = 4000
    chosen = draws(tmp_path / "m.zip", world, count)
    observation = torch.as_tensor(drawn(NUMBERS, 1)[0])[None]
    probabilities = model.policy.get_distribution(observation).distribution
    if isinstance(actions, MultiBinary):
        frequencies, expected = [chosen.mean(axis=0)], [probabilities.probs[0]]
    else:
        parts = probabilities if isinstance(probabilities, list) else [probabilities]
        expected = [part.probs[0] for part in parts]
        columns = chosen.reshape(count, -1).T
        frequencies = [np.bincount(column, minlength=len(p)) / count for column, p in zip(columns, expected, strict=True)]
    for frequency, p in zip(frequencies, expected, strict=True):
        np.testing.assert_allclose(frequency, p.detach().numpy(), atol=5 * 0.5 / count**0.5)


def test_sac_draws_within_the_bounds_with_its_own_noise(tmp_path: Path, saved: Callable) -> None:
    model, world = saved(SAC, NUMBERS, STEER, **ONE_ROW)
    observation = torch.as_tensor(drawn(NUMBERS, 1)[0])[None]
    mean, log_std, _ = model.actor.get_action_dist_params(observation)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2), np.float32))
    expected = model.policy.unscale_action(torch.tanh(mean + log_std.exp() * noise).detach().numpy())[0]
    np.testing.assert_allclose(draws(tmp_path / "m.zip", world, 1)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_dqn_draws_as_often_as_it_still_explored(tmp_path: Path, saved: Callable, rate: float) -> None:
    model, world = saved(DQN, NUMBERS, Discrete(4), **ONE_ROW)
    model.exploration_rate = rate
    model.save(tmp_path / "m.zip")
    best = model.predict(drawn(NUMBERS, 1)[0], deterministic=True)[0]
    other = (draws(tmp_path / "m.zip", world, 2000) != best).mean()
    assert other == pytest.approx(0.75 * rate, abs=5 * 0.5 / 2000**0.5)


@pytest.mark.parametrize(
    ("algorithm", "settings", "text"),
    [
        (TD3, ONE_ROW, "it has no noise in its policy (TD3, DDPG), so its actions cannot be drawn; leave deterministic=0 out"),
        (PPO, {"use_sde": True}, "it has noise that depends on the state (use_sde), so its actions cannot be drawn; leave"),
    ],
)
def test_actions_that_cannot_be_drawn_are_refused(
    tmp_path: Path, saved: Callable, algorithm: Any, settings: dict[str, Any], text: str
) -> None:
    _, world = saved(algorithm, NUMBERS, STEER, **settings)
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        draws(tmp_path / "m.zip", world, 1)


# What is refused


class Own(torch.nn.ReLU):
    """An activation of a user's own."""


def rewritten(
    file: Path, change: Callable[[dict[str, Any]], object] = id, weights: Callable[[dict[str, Any]], object] = id
) -> None:
    """Another zip in its place, of changed data and weights."""
    with zipfile.ZipFile(file) as archive:
        data, state = json.loads(archive.read("data")), torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    change(data)
    weights(state)
    torch.save(state, buffer := io.BytesIO())
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr("policy.pth", buffer.getvalue())


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another package's policy": (
        {"change": lambda data: data["policy_class"].update(__module__="sb3_contrib.common.recurrent.policies")},
        "its policy is a class of sb3_contrib.common.recurrent.policies, expected one of stable_baselines3.common.policies,",
    ),
    "no policy's class": ({"change": lambda data: data.pop("policy_class")}, "its policy is a class of none, expected one of"),
    "no policy_kwargs": ({"change": lambda data: data.pop("policy_kwargs")}, "its policy_kwargs are None, expected an object"),
    "an unknown argument": (
        {"change": lambda data: data["policy_kwargs"].update(lstm_hidden_size=8)},
        "its policy_kwargs have lstm_hidden_size = 8, which is not rebuilt; export what acts as ONNX, and give onnx:FILE(obser",
    ),
    "an argument of another kind": (
        {"change": lambda data: data["policy_kwargs"].update(clip_mean="much")},
        "its policy_kwargs have clip_mean = 'much', which is not rebuilt",
    ),
    "no spaces": ({"change": lambda data: data.pop("action_space")}, "its action_space cannot be read: None; save the model"),
    "another space": (
        {"change": lambda data: data["observation_space"].update({":type:": "<class 'gymnasium.spaces.dict.Dict'>"})},
        "its observation_space is Dict, expected Box, Discrete, MultiDiscrete, MultiBinary; export",
    ),
    "other bounds": (
        {"change": lambda data: data["action_space"].update(high="[1. 1.]")},
        "its actions have the high [1. 1.], the environment's [1. 0.4]; wrap the environment as it was in training (wrap)",
    ),
    "bounds left out": (
        {"change": lambda data: data["action_space"].update(low="[-1. ... 0.]")},
        "its actions have the low [-1. ... 0.], the environment's [-1. 0.]",
    ),
    "more weights": (
        {"weights": lambda state: state.update({"lstm_actor.weight_ih_l0": torch.ones(2, 2)})},
        "its weights lstm_actor.weight_ih_l0 are of no network that is known; export",
    ),
    "a layer of another kind": (
        {"weights": lambda state: state.update({"mlp_extractor.policy_net.1.weight": torch.ones(64)})},
        "its weights mlp_extractor.policy_net.1.weight are of no network that is known",
    ),
    "weights missing": ({"weights": lambda state: state.pop("action_net.bias")}, "its weights lack action_net.bias"),
    "weights that do not fit": (
        {"weights": lambda state: state.update({"action_net.weight": torch.ones(2, 7)})},
        "its weights do not fit together: RuntimeError: mat1 and mat2 shapes cannot be multiplied",
    ),
    "other outputs": (
        {"weights": lambda state: state.update({"action_net.weight": torch.ones(3, 64), "action_net.bias": torch.ones(3)})},
        "its weights do not fit together: ValueError: cannot reshape array of size 3 into shape (2,)",
    ),
    "whole numbers": (
        {"weights": lambda state: state.update({"action_net.bias": torch.ones(2, dtype=torch.int64)})},
        "cannot be read as a model of Stable-Baselines3 (TypeError); give the zip that its model.save wrote",
    ),
    "more than the file holds": (
        {"weights": lambda state: state.update({"action_net.weight": torch.ones(1).expand(2, 1 << 40)})},
        "policy.pth may grow in memory: action_net.weight claims 8796093022208 bytes, the whole file has ",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_cannot_be_rebuilt_is_refused_by_name(tmp_path: Path, saved: Callable, what: str) -> None:
    _, world = saved(PPO, NUMBERS, STEER)
    changes, text = CHANGES[what]
    rewritten(tmp_path / "m.zip", **changes)
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"sb3:{tmp_path}/m.zip", world)


@pytest.mark.parametrize(
    ("policy_kwargs", "text"),
    [
        ({"activation_fn": Own}, f"activation_fn = \"<class '{__name__}.Own'>\", which is not rebuilt"),
        (
            {"activation_fn": torch.nn.PReLU},
            "activation_fn = \"<class 'torch.nn.modules.activation.PReLU'>\", which is not rebuilt",
        ),
    ],
)
def test_an_activation_that_only_a_pickle_holds_is_refused(
    tmp_path: Path, saved: Callable, policy_kwargs: dict[str, Any], text: str
) -> None:
    _, world = saved(PPO, NUMBERS, STEER, policy_kwargs=policy_kwargs)
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"sb3:{tmp_path}/m.zip", world)


@pytest.mark.parametrize(
    ("observations", "actions", "text"),
    [
        (
            Box(-2, 2, (4,), np.float32),
            STEER,
            "its observation_space is Box(3) of float32, the environment's Box(4) of float32; wrap",
        ),
        (
            Box(-2, 2, (3,), np.float64),
            STEER,
            "its observation_space is Box(3) of float32, the environment's Box(3) of float64",
        ),
        (PICTURE, STEER, "the environment's Box(40, 48, 3) of uint8"),
        (NUMBERS, Discrete(2), "its action_space is Box(2) of float32, the environment's Discrete(2)"),
    ],
)
def test_another_environment_is_refused(
    tmp_path: Path, saved: Callable, observations: Space, actions: Space, text: str
) -> None:
    saved(PPO, NUMBERS, STEER)
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"sb3:{tmp_path}/m.zip", World(observations, actions))


def test_observations_that_were_normalised_in_training_are_asked_for(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: World(NUMBERS, STEER)]))
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(8)
    model.save(tmp_path / "m.zip")
    text = "it was trained within VecNormalize, whose statistics are not in the zip; normalise the observations in a wrapper"
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"sb3:{tmp_path}/m.zip", World(NUMBERS, STEER))
    policy = make_policy(f"sb3:{tmp_path}/m.zip(normalized=1)", World(NUMBERS, STEER))
    policy.reset(np.random.default_rng(0))
    for observation in drawn(NUMBERS, 5):
        np.testing.assert_array_equal(policy.act(observation), model.predict(observation, deterministic=True)[0])


def test_pictures_were_not_normalised_where_only_rewards_can_have_been(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: World(PICTURE, STEER)]), norm_obs=False)
    model = PPO("CnnPolicy", env, n_steps=2, batch_size=2, n_epochs=1, device="cpu").learn(2)
    model.save(tmp_path / "m.zip")
    make_policy(f"sb3:{tmp_path}/m.zip", World(PICTURE, STEER))


# Files from strangers


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_no_pickle_of_the_data_is_read(tmp_path: Path, saved: Callable) -> None:
    _, world = saved(PPO, NUMBERS, STEER)
    trap = base64.b64encode(pickle.dumps(Trap(tmp_path / "sprung"))).decode()

    def change(data: dict[str, Any]) -> None:
        data["policy_kwargs"][":serialized:"] = trap
        for value in data.values():
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = trap

    rewritten(tmp_path / "m.zip", change)
    make_policy(f"sb3:{tmp_path}/m.zip", world)
    assert not (tmp_path / "sprung").exists()


def with_members(file: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_pth", ".pth"), content)


def pth(value: Any) -> bytes:
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda file: file.write_bytes(b"nothing"), "BadZipFile"),
        (lambda file: with_members(file, data=b"{}"), "KeyError"),
        (lambda file: with_members(file, policy_pth=pth({})), "KeyError"),
        (lambda file: with_members(file, data=b"[]", policy_pth=pth({})), "ValueError"),
        (lambda file: with_members(file, data=b"{}", policy_pth=pth([1])), "AttributeError"),
        (lambda file: with_members(file, data=b"{}", policy_pth=pth({"a": 1})), "TypeError"),
        (lambda file: with_members(file, data=b"{}", policy_pth=pth({"a": Trap(file.parent / "sprung")})), "UnpicklingError"),
        (lambda file: with_members(file, data=b" " * (64 << 20) + b"{}", policy_pth=pth({})), "ValueError"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, write: Callable[[Path], object], error: str) -> None:
    write(tmp_path / "m.zip")
    text = f"policy sb3: {tmp_path}/m.zip cannot be read as a model of Stable-Baselines3 ({error}); give the zip that its model"
    with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}"):
        make_policy(f"sb3:{tmp_path}/m.zip", World(NUMBERS, STEER))
    assert not (tmp_path / "sprung").exists()


def test_a_zip_that_would_grow_in_memory_is_refused(tmp_path: Path) -> None:
    with_members(tmp_path / "m.zip", zipfile.ZIP_DEFLATED, data=b" " * 100_000 + b"{}", policy_pth=b"")
    text = "m.zip may grow in memory: 'data' in it is compressed; save it again, uncompressed, of contiguous tensors"
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"sb3:{tmp_path}/m.zip", World(NUMBERS, STEER))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(PolicyNotUsable, match=r"policy's weights: \S+no/m\.zip is not there"):
        make_policy("sb3:no/m.zip", World(NUMBERS, STEER))
