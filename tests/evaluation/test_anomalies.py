"""Which frames stand out."""

import numpy as np
import pytest

from worldmodel_v.evaluation.anomalies import APART, find_anomalies


def test_scores_are_standard_deviations_above_the_mean() -> None:
    errors = np.array([1.0] * 99 + [11.0])
    found = find_anomalies(errors, np.zeros(100, int), np.arange(100) * APART)
    assert (found.mean, found.std) == (pytest.approx(1.1), pytest.approx(errors.std()))
    worst = found.standing_out[0]
    assert (worst.episode, worst.row, worst.index, worst.value) == (0, 990, 99, 11.0)
    assert worst.z_score == pytest.approx((11 - 1.1) / errors.std())
    assert found.num_above_threshold == 1
    assert len(found.standing_out) == 10


def test_of_neighbouring_rows_of_an_episode_one_is_named() -> None:
    errors = np.array([5.0, 6.0, 5.5, 4.0, 4.5])
    found = find_anomalies(errors, np.array([0, 0, 0, 0, 1]), np.array([0, 1, 2, 1 + APART, 1]))
    assert [(item.episode, item.row) for item in found.standing_out] == [(0, 1), (1, 1), (0, 1 + APART)]


def test_equal_errors_have_no_anomaly() -> None:
    found = find_anomalies(np.full(20, 3.0), np.zeros(20, int), np.arange(20))
    assert found.num_above_threshold == 0
    assert {item.z_score for item in found.standing_out} == {0.0}
