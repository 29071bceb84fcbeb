"""How long a frame takes to be cropped and resized, beside two matrix products in NumPy, for frames of several sizes.

    python benchmarks/frames.py [--size 64] [--seconds 1]

The two take turns; figures are medians, on one core.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _machine import describe_machine

from worldmodel_v.envs.frames import area_weights, frame_preprocessor
from worldmodel_v.preprocessing import Preprocessing

FRAMES = {
    "CarRacing without its bar": (84, 96, 3),
    "Atari": (210, 160, 3),
    "LunarLander": (400, 600, 3),
    "MuJoCo": (480, 480, 3),
}


def in_numpy(shape: tuple[int, ...], size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same area averages, by a product for rows and one for columns, in float32."""
    rows, columns = (area_weights(length, size).astype(np.float32) for length in shape[:2])
    rows, columns = (weights / weights.sum(axis=1, keepdims=True) for weights in (rows, columns))

    def resize(frame: np.ndarray) -> np.ndarray:
        summed = rows @ frame.reshape(shape[0], -1).astype(np.float32)
        cells = np.matmul(columns, summed.reshape(size, shape[1], shape[2]))
        return np.rint(cells).astype(np.uint8)

    return resize


def microseconds(work: Callable[[np.ndarray], object], frame: np.ndarray) -> float:
    start = time.perf_counter()
    for _ in range(100):
        work(frame)
    return (time.perf_counter() - start) * 1e4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    print(describe_machine("numpy", "numba"))
    for name, shape in FRAMES.items():
        frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        ours = frame_preprocessor(shape, Preprocessing(frame_height=args.size, frame_width=args.size))
        numpys = in_numpy(shape, args.size)
        farthest = np.abs(ours(frame).astype(int) - numpys(frame)).max()
        assert farthest <= 1, f"they differ by {farthest} grey levels"
        times: list[tuple[float, float]] = []
        end = time.perf_counter() + args.seconds
        for turn in itertools.count():
            if time.perf_counter() > end and turn > 4:
                break
            times.append((microseconds(ours, frame), microseconds(numpys, frame)))
        here, there = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(numpy / own for own, numpy in times)
        sizes = f"{shape[0]}x{shape[1]} -> {args.size}x{args.size}"
        print(f"{name:26} {sizes:20} {here:7.1f} µs, in NumPy {there:8.1f} µs: {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
