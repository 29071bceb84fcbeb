"""SSIM against its formula, written out."""

import numpy as np
import pytest
import torch

from worldmodel_v.autoencoders.base import CodedBatch
from worldmodel_v.evaluation.metrics import ssim


def batch(x: np.ndarray, decoded: np.ndarray) -> CodedBatch:
    return CodedBatch(torch.from_numpy(x), (), {}, torch.from_numpy(decoded))


def found(x: np.ndarray, decoded: np.ndarray) -> list[float]:
    return ssim(batch(x, decoded)).tolist()


def formula(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, of one frame (C, H, W): a window of 11 pixels around each pixel."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for a, b in zip(x.astype(float), y.astype(float), strict=True):
        height, width = a.shape
        a, b = np.pad(a, 5, mode="reflect"), np.pad(b, 5, mode="reflect")
        for i in range(height):
            for j in range(width):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                m, n = (window * p).sum(), (window * q).sum()
                v, w = (window * p * p).sum() - m * m, (window * q * q).sum() - n * n
                c = (window * p * q).sum() - m * n
                values.append((2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4)))
    return float(np.mean(values))


def test_it_is_the_formulas() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 16, 20), dtype=np.float32)
    decoded = np.clip(x + rng.normal(scale=[[[[0.05]]], [[[0.3]]]], size=x.shape), 0, 1).astype(np.float32)
    assert found(x, decoded) == pytest.approx([formula(a, b) for a, b in zip(x, decoded, strict=True)], abs=1e-4)


def test_equal_frames_score_one() -> None:
    x = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    assert found(x, x) == pytest.approx([1.0, 1.0], abs=1e-6)


def test_the_smallest_frames_have_one() -> None:
    rng = np.random.default_rng(0)
    x, decoded = rng.random((2, 1, 3, 8, 8), dtype=np.float32)
    assert found(x, decoded) == pytest.approx([formula(x[0], decoded[0])], abs=1e-4)
