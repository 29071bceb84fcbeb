"""SAP and MIG where the answer is known."""

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_regression
from sklearn.linear_model import LinearRegression

from worldmodel_v.evaluation.disentangle import binned, correlations, disentangle
from worldmodel_v.evaluation.factors import Factors

N = 4000


def factors(values: np.ndarray) -> Factors:
    return Factors(names=tuple("abcdef"[: values.shape[1]]), values=values)


def uniform(columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (N, columns))


def test_one_latent_for_each_factor_scores_one() -> None:
    truth = uniform(3)
    mu = np.column_stack([5 * truth[:, 2], 0.01 * uniform(1, seed=1)[:, 0], -truth[:, 0], truth[:, 1] + 3])
    found = disentangle(mu, factors(truth))
    assert found.sap == pytest.approx(1.0, abs=0.01)
    assert found.mig == pytest.approx(1.0, abs=0.05)
    assert [score.latent for score in found.factors] == [2, 3, 0]
    assert [score.mig_latent for score in found.factors] == [2, 3, 0]
    assert [top.factor for top in found.top_factors] == ["c", found.top_factors[1].factor, "a", "b"]
    assert [found.top_factors[i].correlation for i in (0, 2, 3)] == pytest.approx([1.0, -1.0, 1.0])


def test_latents_that_know_nothing_score_zero() -> None:
    found = disentangle(uniform(5, seed=1), factors(uniform(3)))
    assert found.sap < 0.01
    assert found.mig < 0.02
    assert all(score.r2 < 0.01 for score in found.factors)


def test_two_latents_that_know_it_equally_well_leave_no_gap() -> None:
    truth = uniform(1)
    found = disentangle(np.column_stack([truth, -2 * truth, np.zeros(N)]), factors(truth))
    assert found.factors[0].r2 == pytest.approx(1.0)
    assert found.sap == pytest.approx(0.0, abs=1e-9)
    assert found.mig == pytest.approx(0.0, abs=1e-9)


def test_a_rotation_by_45_degrees_keeps_the_information_but_not_the_gap() -> None:
    truth = np.random.default_rng(0).normal(size=(N, 2))
    turned = truth @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    found = disentangle(turned, factors(truth))
    assert [score.r2 for score in found.factors] == pytest.approx([0.5, 0.5], abs=0.04)
    assert found.sap < 0.08
    assert found.mig < 0.05


def test_the_r2_of_one_latent_is_that_of_scikit_learns_regression() -> None:
    truth, mu = uniform(2), uniform(4, seed=1)
    mu[:, 1] += truth[:, 0]
    r2 = correlations(truth, mu) ** 2
    for s in range(2):
        for z in range(4):
            expected = LinearRegression().fit(mu[:, [z]], truth[:, s]).score(mu[:, [z]], truth[:, s])
            assert r2[s, z] == pytest.approx(expected, abs=1e-12)


def test_the_information_gap_agrees_with_an_estimate_without_bins() -> None:
    """scikit-learn's nearest-neighbour estimate of mutual information, on a noisy copy of a four-valued factor."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (N, 1)).astype(float)
    mu = np.column_stack([truth[:, 0] + rng.normal(scale=0.4, size=N), rng.normal(size=N)])
    estimates = mutual_info_regression(mu, truth[:, 0], discrete_features=False, random_state=0)
    expected = (estimates[0] - estimates[1]) / np.log(4)
    assert disentangle(mu, factors(truth)).mig == pytest.approx(expected, abs=0.05)


def test_a_single_latent_has_no_second_best() -> None:
    truth = uniform(1)
    found = disentangle(truth, factors(truth))
    assert (found.sap, found.mig) == (pytest.approx(1.0), pytest.approx(1.0))


def test_a_silent_latent_correlates_with_nothing() -> None:
    found = disentangle(np.zeros((N, 2)), factors(uniform(2)))
    assert (found.sap, found.mig) == (0.0, 0.0)
    assert [top.correlation for top in found.top_factors] == [0.0, 0.0]


class TestBins:
    def test_few_values_are_classes_as_they_are(self) -> None:
        assert binned(np.array([0.5, -3.0, 0.5, 100.0])).tolist() == [1, 0, 1, 2]

    def test_many_values_fall_into_twenty_bins_of_equal_width(self) -> None:
        classes = binned(np.linspace(0, 1, 1001))
        assert sorted(set(classes.tolist())) == list(range(20))
        assert classes[0] == 0
        assert classes[-1] == 19
        assert set(np.bincount(classes).tolist()) <= {49, 50, 51}


def test_an_angles_r2_is_that_of_a_regression_on_its_cosine_and_sine() -> None:
    rng = np.random.default_rng(5)
    turn = rng.vonmises(1.0, 0.5, 400)
    mu = np.column_stack([np.cos(turn - 3.0) + 0.3 * rng.normal(size=400), rng.normal(size=400), np.cos(2 * turn)])
    found = disentangle(mu, Factors(names=("x", "angle"), values=np.column_stack([mu[:, 1], turn])))
    design = np.column_stack([np.ones(400), np.cos(turn), np.sin(turn)])
    residual = mu - design @ np.linalg.lstsq(design, mu, rcond=None)[0]
    expected = 1 - residual.var(axis=0) / mu.var(axis=0)
    (x, angle) = found.factors
    assert (x.latent, x.r2) == (1, pytest.approx(1.0))
    assert (angle.latent, angle.r2) == (0, pytest.approx(expected[0]))
    assert angle.sap == pytest.approx(expected[0] - np.sort(expected)[-2])
    assert found.top_factors[0].factor == "angle"
    assert found.top_factors[0].correlation == pytest.approx(expected[0] ** 0.5)


def test_an_angle_of_two_values_is_no_worse_than_a_number_of_two_values() -> None:
    value = np.array([0.0, 1.0] * 20)
    found = disentangle(value[:, None] + 1.0, Factors(names=("angle",), values=value[:, None]))
    assert found.factors[0].r2 == pytest.approx(1.0)
