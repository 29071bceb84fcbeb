"""Directions along which a factor changes, where they are known."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from worldmodel_v.evaluation.attributes import achieved_share, choose_edits, edit, fit_attributes
from worldmodel_v.evaluation.factors import Factors

N = 3000
EPISODES = np.repeat(np.arange(10), N // 10)


def latents(seed: int = 0) -> np.ndarray:
    """Correlated ones, the last silent."""
    mixing = np.array([[1.0, 0.8, 0.0, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1e-3]])
    return np.random.default_rng(seed).normal(size=(N, 4)) @ mixing


ACTIVE = np.array([True, True, True, False])


def named(**columns: np.ndarray) -> Factors:
    return Factors(names=tuple(columns), values=np.column_stack(list(columns.values())))


def test_the_regression_is_scikit_learns_on_the_active_latents() -> None:
    mu = latents()
    speed = 3 * mu[:, 0] - mu[:, 2] + np.random.default_rng(1).normal(size=N)
    (found,) = fit_attributes(mu, ACTIVE, named(speed=speed), EPISODES)
    reference = LinearRegression().fit(mu[:, :3], speed)
    np.testing.assert_allclose(found.weights, [*reference.coef_, 0.0], atol=1e-9)
    known = EPISODES % 2 == 0
    half = LinearRegression().fit(mu[known, :3], speed[known])
    assert found.r2 == pytest.approx(half.score(mu[~known, :3], speed[~known]), abs=1e-9)


def test_a_step_changes_the_prediction_by_its_standard_deviation_and_goes_where_frames_differ() -> None:
    mu = latents()
    (found,) = fit_attributes(mu, ACTIVE, named(speed=5 * mu[:, 0]), EPISODES)
    assert found.change_per_sigma == pytest.approx(5 * mu[:, 0].std())
    assert np.dot(found.weights, found.direction) == pytest.approx(found.change_per_sigma)
    expected = np.cov(mu.T, mu[:, 0], bias=True)[:-1, -1] / mu[:, 0].std()
    np.testing.assert_allclose(found.direction, expected, atol=1e-9)
    assert found.direction[1] > 0.5  # it comes with the first, though it carries no weight


def test_edited_latents_stand_at_minus_two_to_two_steps() -> None:
    mu = latents()
    (found,) = fit_attributes(mu, ACTIVE, named(speed=mu[:, 2]), EPISODES)
    points = edit(mu[:2], found)
    assert points.shape == (2, 5, 4)
    np.testing.assert_allclose(points[:, 2], mu[:2])
    np.testing.assert_allclose(points[:, 4] - points[:, 2], np.tile(2 * np.array(found.direction), (2, 1)))


def test_the_achieved_share_is_that_of_the_factor() -> None:
    mu = latents()
    (found,) = fit_attributes(mu, ACTIVE, named(speed=mu[:, 2]), EPISODES)
    asked = edit(mu[:3], found)
    assert achieved_share(asked, asked, found) == pytest.approx(1.0)
    assert achieved_share(asked, mu[:3, None] + 0.25 * (asked - mu[:3, None]), found) == pytest.approx(0.25)
    assert achieved_share(asked, np.repeat(mu[:3, None], 5, axis=1), found) == pytest.approx(0.0)


def test_the_best_predicted_come_first_and_the_same_thing_is_edited_once() -> None:
    mu, noise = latents(), np.random.default_rng(1).normal(size=(2, N))
    factors = named(noise=noise[0], left=mu[:, 0] + 0.1 * noise[1], right=2 * mu[:, 0], other=mu[:, 2] + noise[1])
    attributes = fit_attributes(mu, ACTIVE, factors, EPISODES)
    assert [item.factor for item in attributes] == ["right", "left", "other", "noise"]
    assert attributes[-1].r2 < 0.01
    assert [item.factor for item in choose_edits(attributes, factors)] == ["left", "other"]


def test_without_an_active_latent_there_is_nothing_to_fit() -> None:
    assert fit_attributes(latents(), np.zeros(4, bool), named(speed=latents()[:, 0]), EPISODES) == []


def test_an_angle_has_no_end() -> None:
    """Where the angle of two latents is cut, at -π or elsewhere, is nothing to their regression; it is not edited."""
    turn = np.random.default_rng(3).uniform(-np.pi, np.pi, N)
    mu = np.column_stack([np.cos(turn), np.sin(turn), *latents()[:, 2:].T])
    found = fit_attributes(mu, ACTIVE, named(angle=turn, other=turn), EPISODES)
    by_name = {item.factor: item for item in found}
    assert by_name["angle"].r2 == pytest.approx(1.0)
    assert by_name["angle"].rms_error == pytest.approx(0.0, abs=1e-6)
    assert by_name["other"].r2 < 0.9
    assert by_name["other"].rms_error > 0.5
    assert [item.factor for item in choose_edits(found, named(angle=turn, other=turn))] == ["other"]


def test_an_angles_error_goes_the_shorter_way_round() -> None:
    rng = np.random.default_rng(4)
    turn = np.pi + rng.normal(scale=0.1, size=N)
    angle = np.angle(np.exp(1j * turn))
    mu = np.column_stack([latents()[:, 0], np.zeros((N, 3))])
    (found,) = fit_attributes(mu, np.array([True, False, False, False]), named(angle=angle), EPISODES)
    assert found.rms_error == pytest.approx(0.1, rel=0.1)


def test_the_error_is_that_of_the_frames_that_were_not_fitted() -> None:
    mu = latents()
    speed = mu[:, 0] + np.random.default_rng(1).normal(size=N)
    (found,) = fit_attributes(mu, ACTIVE, named(speed=speed), EPISODES)
    known = EPISODES % 2 == 0
    half = LinearRegression().fit(mu[known, :3], speed[known])
    errors = half.predict(mu[~known, :3]) - speed[~known]
    assert found.rms_error == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-9)


def test_a_single_episode_is_fitted_on_its_first_half() -> None:
    mu = latents()
    values = np.where(np.arange(N) < N // 2, mu[:, 0], -mu[:, 0])
    (found,) = fit_attributes(mu, ACTIVE, named(speed=values), np.zeros(N, int))
    assert found.r2 < -2
