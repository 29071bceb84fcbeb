"""The policies that are worth recording: the driver, random starts, mixtures, and a user's own network."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.conftest import stamp_config
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs import make_image_env
from worldmodel_v.envs.car_racing import move_car_to_tile
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy
from worldmodel_v.records import Episode
from worldmodel_v.sources.gym import rollout
from worldmodel_v.storage import open_dataset


def car_racing(policy: str, episode_id: int = 0, max_steps: int = 40) -> Episode:
    config = CollectConfig(out=Path("unused"), env="CarRacing-v3", policy=policy, max_steps=max_steps, workers=0)
    return rollout(resolve_spec(config), episode_id)


def factor(episode: Episode, name: str) -> np.ndarray:
    assert episode.state is not None
    return episode.state[:, episode.state_names.index(name)]


def test_the_driver_goes_forward_on_the_road() -> None:
    episode = car_racing("driver", max_steps=120)
    assert factor(episode, "progress")[-1] > 5 * factor(episode, "progress")[0]
    assert (factor(episode, "on_road")[1:] == 1).all()
    assert episode.episode_return > 30


@pytest.mark.slow
@pytest.mark.parametrize("episode_id", [0, 1, 2])
def test_the_driver_without_noise_drives_a_lap(episode_id: int) -> None:
    episode = car_racing("driver", episode_id, max_steps=1000)
    assert factor(episode, "progress")[-1] > 0.9


def test_noise_moves_the_driver_and_is_a_function_of_the_episode() -> None:
    calm, noisy, again = car_racing("driver"), car_racing("driver(noise=0.5)"), car_racing("driver(noise=0.5)")
    np.testing.assert_array_equal(noisy.action, again.action)
    assert np.abs(noisy.action[:-1, 0] - calm.action[:-1, 0]).std() > 0.1


def test_the_drivers_noise_has_the_spread_asked_for() -> None:
    env = make_image_env("CarRacing-v3", {})
    env.reset(0)
    policy = make_policy("driver(noise=0.3)", env.gym)
    policy.reset(np.random.default_rng(0))
    walk = np.array([policy._next_disturbance() for _ in range(20_000)])  # type: ignore[attr-defined]
    env.close()
    np.testing.assert_allclose(walk.std(axis=0), 0.3, rtol=0.05)
    np.testing.assert_allclose([np.corrcoef(x[:-1], x[1:])[0, 1] for x in walk.T], 0.9, atol=0.01)


def test_a_random_start_puts_the_car_on_another_tile_facing_along_it() -> None:
    env = make_image_env("CarRacing-v3", {})
    first = env.reset(5)
    start = dict(zip(env.state_names, env.state(), strict=True))
    moved = move_car_to_tile(env.gym, 100)
    there = dict(zip(env.state_names, env.state(), strict=True))
    _, beta, x, y = env.gym.unwrapped.track[100]
    env.close()
    assert (there["position_x"], there["position_y"]) == pytest.approx((x, y), abs=0.1)
    assert there["angle"] == pytest.approx(beta, abs=0.05)
    assert there["on_road"] == 1
    assert abs(there["position_x"] - start["position_x"]) + abs(there["position_y"] - start["position_y"]) > 10
    assert moved.shape == first.shape
    assert (moved != first).any()


def test_random_starts_differ_between_episodes_and_hand_over_to_the_policy_inside() -> None:
    episodes = [car_racing("random-start(driver)", i, max_steps=30) for i in range(3)]
    assert len({tuple(episode.state[0, :2]) for episode in episodes if episode.state is not None}) == 3
    for episode in episodes:
        assert factor(episode, "progress")[-1] > factor(episode, "progress")[0]
        np.testing.assert_array_equal(episode.action, car_racing("random-start(driver)", episode.episode_id, 30).action)


def test_a_mixture_draws_by_weight_from_the_episodes_own_seed_and_says_which(tmp_path: Path) -> None:
    line = "mixture(3*random, 1*tests.policies.test_drivers:Still)"
    collect(stamp_config(tmp_path / "out", policy=line, episodes=60, max_steps=3, episodes_per_shard=60))
    dataset = open_dataset(tmp_path / "out")
    chosen = [dataset.episode(i).policy for i in range(60)]
    assert set(chosen) == {"random", "tests.policies.test_drivers:Still"}
    assert 35 <= chosen.count("random") <= 55
    for episode_id in (0, 30, 59):
        episode = dataset.episode(episode_id)
        assert (episode.action[:-1] == 0).all() == (episode.policy != "random")


class Still:
    """A policy that does nothing."""

    def __init__(self, env: object) -> None:
        pass

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, frame: np.ndarray) -> np.ndarray:
        return np.zeros(2, dtype=np.float32)


class Reddest(torch.nn.Module):
    """A network whose action is the mean red of the frame, times a learnt factor."""

    def __init__(self, env: object) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW[:, 0].mean(dim=(1, 2))[:, None] * self.factor


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_checkpoint_drives_with_the_weights_of_its_file(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"factor": torch.tensor([0.5, -0.25])}
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(weights, tmp_path / f"w.{suffix}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = "~/" if suffix == "pt" else ""
    line = f"checkpoint:tests.policies.test_drivers:Reddest:{home}w.{suffix}"
    num_threads = torch.get_num_threads()
    collect(stamp_config(tmp_path / "out", policy=line, episodes=1, frame_size=64))
    assert torch.get_num_threads() == num_threads
    episode = open_dataset(tmp_path / "out").episode(0)
    red = episode.pixels[:-1, ..., 0].reshape(episode.num_steps, -1).mean(axis=1) / 255
    np.testing.assert_allclose(episode.action[:-1], red[:, None] * np.array([0.5, -0.25]), atol=1e-6)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    torch.save({"factor": Trap()}, tmp_path / "w.pt")
    env = make_image_env("worldmodel_v/Stamp-v0", {})
    with pytest.raises(PolicyNotUsable, match=r"w\.pt cannot be read as weights \(UnpicklingError\); give a"):
        make_policy(f"checkpoint:tests.policies.test_drivers:Reddest:{tmp_path}/w.pt", env.gym)
    env.close()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("driver", "policy driver needs CarRacing with continuous actions"),
        ("random-start(random)", "policy random-start needs CarRacing"),
        ("random-start(random, brownian)", "drives with one policy"),
        ("mixture(0*random)", "needs policies with positive weights"),
        ("random(speed=3)", "takes no speed; it takes no numbers"),
        ("driver(sped=3)", "takes no sped; it takes speed, curve_speed, look_ahead, noise"),
        ("random-start(driver, tyle=3)", "takes no tyle; it takes tile"),
        ("mixture(nonsense)", "unknown policy 'nonsense'"),
        ("checkpoint:x:y", "expected checkpoint:MODULE:FACTORY:FILE"),
        ("checkpoint:tests.policies.test_drivers:Reddest:no/file.pt", "no/file.pt is not there"),
    ],
)
def test_policies_that_make_no_sense_here_are_refused(line: str, message: str) -> None:
    env = make_image_env("worldmodel_v/Stamp-v0", {})
    with pytest.raises(PolicyNotUsable, match=re.escape(message)):
        make_policy(line, env.gym)
    env.close()


def test_a_driver_looks_ahead_by_whole_tiles() -> None:
    with (
        make_image_env("worldmodel_v/CarRacing-v3", {}) as env,
        pytest.raises(PolicyNotUsable, match="look_ahead must be positive, look_ahead whole, noise at least 0"),
    ):
        make_policy("driver(look_ahead=2.5)", env.gym)
