"""The verdict on alignment: toy worlds whose shift is known, hand-made gains, datasets, and the command."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import latent_spec, made_rollout_schema, make_latents, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.alignment import Gain, Rows, Verdict, decide, judge, read_rows
from worldmodel_v.alignment.rows import _numbers, _values, averaged, with_scaled_numbers
from worldmodel_v.cli import inspect
from worldmodel_v.collection import collect
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.inspection import judge_alignment
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

MATRIX = np.array([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.0, 0.8]])
EFFECT = np.array([[1.0, 0.0], [0.3, 0.5], [0.0, 1.0]])
GAIN = np.array([[-0.4, 0.1, 0.2], [0.1, -0.5, 0.0]])


def toy(
    seed: int = 0,
    *,
    looks: bool = False,
    noise: float = 1.0,
    world_noise: float = 0.3,
    delay: int = 0,
    cost: float = 0.0,
    effect: float = 1.0,
    discrete: bool = False,
    episodes: int = 12,
    steps: int = 80,
) -> list[Rows]:
    """A linear world of three values and two actions: x' = M x + E a, seen exactly, or `delay` rows late."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(episodes):
        states, actions = [rng.normal(size=3)], [np.zeros(2)] * delay
        for _ in range(steps):
            action = (GAIN @ states[-1] if looks else 0) + noise * rng.normal(size=2)
            actions.append(np.sign(action) if discrete else action)
            push = effect * EFFECT @ actions[len(actions) - 1 - delay]
            states.append(MATRIX @ states[-1] + push + world_noise * rng.normal(size=3))
        own = np.array(actions[delay:])
        reward = np.array(states)[1:, 0] - cost * np.square(own).sum(axis=1)
        made.append(Rows((np.array(states),), own, reward))
    return made


def shifted(episodes: Sequence[Rows], by: int) -> list[Rows]:
    """Row t holds a_t-by; rows that get no action are cut off."""
    made = []
    for rows in episodes:
        first, last = max(0, by), len(rows.action) + min(0, by)
        seen = tuple(each[first : last + 1] for each in rows.observation)
        made.append(Rows(seen, rows.action[first - by : last - by], rows.reward[first:last]))
    return made


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("looks", [False, True])
def test_aligned_and_late_actions_are_found(shift: int, looks: bool, discrete: bool) -> None:
    verdict = judge(shifted(toy(looks=looks, discrete=discrete), shift))
    assert (verdict.answer, verdict.rows, verdict.possible) == ("late" if shift else "aligned", shift, (shift,))
    assert verdict.evidence.startswith(
        f"an action first shows in {('the row +1', 'its own row', 'the row -1', 'the row -2')[shift]}: +"
    )
    assert str(verdict) == (f"late by {shift}" if shift else "aligned")


@pytest.mark.parametrize("early", [1, 2])
@pytest.mark.parametrize("looks", [False, True])
def test_early_actions_are_a_tie_unless_a_reward_depends_on_the_action_itself(early: int, looks: bool) -> None:
    verdict = judge(shifted(toy(looks=looks), -early))
    assert (verdict.answer, verdict.rows, verdict.possible) == ("undecidable", 0, tuple(range(-early, 1)))
    rows = "1 row" if early == 1 else f"{early} rows"
    assert f"actions are early by {early}, or the world answers {rows} late; an action first shows in" in verdict.evidence
    verdict = judge(shifted(toy(looks=looks, cost=0.5), -early))
    assert str(verdict) == f"early by {early}"
    assert verdict.evidence.endswith(f"and in the reward of the row +{early}")


def test_a_world_that_answers_late_is_no_early_action() -> None:
    assert judge(toy(delay=1)).possible == (-1, 0)
    assert str(judge(toy(delay=1, cost=0.5))) == "aligned"
    assert judge(shifted(toy(delay=1), 2)).answer == "late"


def test_aligned_actions_of_a_policy_that_looks_are_never_called_shifted() -> None:
    for seed in range(8):
        noisy = judge(toy(seed, looks=True, noise=0.5, world_noise=0.5, episodes=8))
        assert noisy.answer in ("aligned", "undecidable"), (seed, noisy)


@pytest.mark.parametrize("shift", [-1, 0, 1])
@pytest.mark.parametrize("world_noise", [0.0, 0.3])
def test_a_deterministic_policy_is_undecidable(shift: int, world_noise: float) -> None:
    verdict = judge(shifted(toy(looks=True, noise=0.0, world_noise=world_noise), shift))
    assert verdict.answer == "undecidable"
    assert verdict.possible == ((shift, shift + 1) if world_noise else ())


def test_what_tells_nothing_is_undecidable() -> None:
    assert judge(toy(noise=0.0)).evidence == "all actions are the same"
    assert judge(toy(episodes=2, steps=60)).evidence == "there are fewer than 300 rows with their neighbours"
    assert judge(toy(steps=3)).evidence == "there are fewer than 300 rows with their neighbours"
    without_effect = judge(toy(effect=0.0, world_noise=1.0))
    assert without_effect.answer == "undecidable"
    assert without_effect.evidence == "no observation near an action tells of it more than what was known before"
    still = [Rows((np.zeros((81, 3)),), rows.action, np.zeros(80)) for rows in toy()]
    assert judge(still).evidence == without_effect.evidence


def test_the_verdict_is_a_function_of_the_rows() -> None:
    assert judge(toy()) == judge(toy())


def gains(sizes: dict[int, float], before: float = 0.0, rewards: Sequence[int] = ()) -> dict[int, Gain]:
    """Significant gains at some offsets, nothing at the others."""
    return {
        m: Gain(sizes.get(m, 0.0), 9.0 * (m in sizes), before, 0.1 * (m in rewards), 9.0 * (m in rewards)) for m in range(-4, 4)
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (gains({0: 0.3, 1: 0.3}), "aligned"),
        (gains({-1: 0.3, 0: 0.3}), "late by 1"),
        (gains({-1: 0.3, 0: 0.3}, before=0.2), "what a policy that looks does is not told from an effect"),
        (gains({-1: 0.3}, before=0.2), "late by 1"),
        (gains({-1: 0.3}, before=0.7), "actions are late by 1, or aligned and chosen without noise"),
        (gains({0: 0.3}, before=0.7), "actions are aligned, or early by 1 and chosen without noise"),
        (
            gains({1: 0.3}, before=0.7),
            "actions are early by 1, or the world answers 1 row late, or early by 2 and chosen without noise",
        ),
        (gains({-2: 0.05, 0: 0.3}), "where actions begin to show is not clear"),
        (gains({-4: 0.3, -3: 0.1}), "actions show 4 rows before their own, or earlier"),
        (gains({0: 0.001}), "no observation near an action tells of it more than what was known before"),
        (gains({2: 0.3}), "actions are early by 2, or the world answers 2 rows late"),
        (gains({2: 0.3}, rewards=[1, 2]), "actions are early by 2, or the world answers 2 rows late"),
        (gains({2: 0.3}, rewards=[2, 3]), "early by 2"),
        (gains({2: 0.3}, rewards=[0]), "aligned"),
    ],
)
def test_what_follows_from_gains(found: dict[int, Gain], expected: str) -> None:
    verdict = decide(found)
    said = verdict.evidence if verdict.answer == "undecidable" else str(verdict)
    assert said.startswith(expected)


def test_frames_are_averaged_and_tokens_become_numbers() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
    means = averaged(frames)
    assert means.shape == (5, 16 * 16 * 3)
    np.testing.assert_allclose(means[:, :3], frames[:, :1, :2].mean(axis=(1, 2)) / 255)
    assert averaged(frames[:, :8, :8]).shape == (5, 8 * 8 * 3)
    tokens = Column(name="tokens", dtype="int64", row_shape=(16, 16), role="latent", num_values=512)
    numbers = _values(np.arange(3 * 256).reshape(3, 16, 16) % 512, tokens)
    assert numbers.shape == (3, 768)
    np.testing.assert_allclose(numbers[0], numbers[2], rtol=0, atol=1e-12)  # a row's place may change its last digit
    assert not np.allclose(numbers[0], numbers[1])


@pytest.mark.parametrize(("first", "possible"), [(-1, (0, 1)), (0, (-1, 0)), (1, (-2, -1, 0))])
def test_what_may_be_an_effect_or_a_policy_without_noise_is_a_tie(first: int, possible: tuple[int, ...]) -> None:
    assert decide(gains({first: 0.3}, before=0.7)).possible == possible


def test_numbers_beside_the_frames_count_if_they_were_observed() -> None:
    def extra(name: str, size: int) -> Column:
        return Column(name=name, dtype="float32", row_shape=(size,), role="extra")

    beside = [extra("observation", 4), extra("observation.goal", 2), extra("info.speed", 1), extra("observation.wide", 2000)]
    schema = made_rollout_schema(num_factors=3)
    schema = dataclasses.replace(schema, columns=(*schema.columns, *beside))
    assert [column.name for column in _numbers(schema)] == ["state", "observation", "observation.goal"]


def test_numbers_are_in_standard_deviations_and_finite() -> None:
    def scaled(*numbers: list[float]) -> tuple[np.ndarray, ...]:
        beside = np.array(numbers)
        return with_scaled_numbers([Rows((np.zeros((2, 1)), beside), np.zeros((1, 1)), np.zeros(1))])[0].observation

    _, beside = scaled([1.0, 5.0, np.nan, 0.0, 1e200], [3.0, 5.0, 1.0, np.inf, 0.0])
    np.testing.assert_array_equal(beside, [[-1], [1]])
    assert len(scaled([5.0], [5.0])) == 1


def test_the_observation_of_cart_pole_shows_at_once_what_its_frames_show_a_row_late(tmp_path: Path) -> None:
    collect(
        stamp_config(tmp_path, env="CartPole-v1", episodes=40, episodes_per_shard=40, frame_size=16, record=("observation",))
    )
    episodes = read_rows(open_dataset(tmp_path))
    assert str(judge(episodes)) == "aligned"
    assert str(judge(shifted(episodes, 1))) == "late by 1"
    frames_alone = [dataclasses.replace(rows, observation=rows.observation[:1]) for rows in episodes]
    assert judge(frames_alone).answer != "late"
    assert [each.shape[1] for each in episodes[0].observation] == [16 * 16 * 3, 4]


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts of some hundred rows."""
    out = tmp_path_factory.mktemp("alignment") / "rollouts"
    collect(stamp_config(out, episodes=40, episodes_per_shard=15, frame_size=16))
    return out


@pytest.fixture(scope="module")
def late(rollouts: Path) -> Path:
    """The same, written with each action a row late."""
    dataset = open_dataset(rollouts)
    out = rollouts.parent / "late"
    with DatasetWriter(out, dataset.spec) as writer:
        for number, entry in enumerate(dataset.entries):
            ids = range(entry.first_episode, entry.end_episode)
            image = build_shard([one_row_late(dataset.episode(i)) for i in ids], spec_hash=dataset.spec_hash)
            writer.commit(number, image)
    return out


def one_row_late(episode: Episode) -> Episode:
    action = episode.action.copy()
    action[1:-1], action[0] = episode.action[:-2], 0
    return dataclasses.replace(episode, columns={**episode.columns, "action": action})


def inspected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["wm-inspect", *map(str, words), "--quiet"])
    inspect.main()
    return capsys.readouterr().out


def test_the_command_says_the_verdict(
    rollouts: Path, late: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads(inspected(monkeypatch, capsys, rollouts, "--alignment", "--json"))
    assert facts["alignment"].pop("evidence").startswith("an action first shows in the row +1: +")
    assert facts["alignment"] == {"verdict": "aligned", "rows": 0, "possible": [0]}
    shown = " ".join(inspected(monkeypatch, capsys, late, "--alignment", "--state").split())
    assert "actions late by 1: an action first shows in its own row: +" in shown
    assert "alignment" not in json.loads(inspected(monkeypatch, capsys, rollouts, "--json"))


def test_latents_are_judged_as_well(tmp_path: Path) -> None:
    latents = [make_latents(i, 20) for i in range(30)]
    with DatasetWriter(tmp_path / "latents", latent_spec()) as writer:
        attributes = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64}
        image = build_shard(latents, spec_hash=latent_spec().hash, attributes=attributes)
        writer.commit(0, image)
    assert judge_alignment(tmp_path / "latents")["evidence"].startswith("no observation near an action tells of it")


def test_long_episodes_are_read_from_their_middle(rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel_v.alignment.rows.LONGEST", 10)
    monkeypatch.setattr("worldmodel_v.alignment.rows.MOST_ROWS", 50)
    dataset, episodes = open_dataset(rollouts), read_rows(open_dataset(rollouts))
    assert [len(rows.action) for rows in episodes] == [10] * 5
    first = dataset.episode(0)
    start = (first.num_steps - 10) // 2
    np.testing.assert_array_equal(episodes[0].action, first.action[start : start + 10])
    np.testing.assert_array_equal(episodes[0].observation[0], averaged(first.pixels[start : start + 11]))


def test_what_is_no_dataset_or_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").touch()
    with pytest.raises(DatasetNotUsable, match="expected a dataset to judge, got a VAE"):
        judge_alignment(tmp_path)
    with DatasetWriter(tmp_path / "empty", rollout_spec(made_rollout_schema())):
        pass
    with pytest.raises(DatasetNotUsable, match="the dataset is empty"):
        judge_alignment(tmp_path / "empty")


def test_a_verdict_in_words() -> None:
    assert str(Verdict("early", 2, "")) == "early by 2"
    assert str(Verdict("undecidable", 0, "")) == "undecidable"
