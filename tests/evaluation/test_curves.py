"""What a training recorded, read again."""

import json
from pathlib import Path

import numpy as np
import pytest

from worldmodel_v.autoencoders.artifact import METRICS_NAME
from worldmodel_v.evaluation.charts import line_chart
from worldmodel_v.evaluation.curves import MAX_POINTS, read_curves


def write(folder: Path, *lines: object) -> Path:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / METRICS_NAME).write_text(text)
    return folder


def test_the_curves_are_those_of_the_record(tmp_path: Path) -> None:
    write(
        tmp_path,
        *({"step": step, "group": "train", "loss": 10.0 - step, "beta": 1.0} for step in (1, 2, 3)),
        {"step": 3, "group": "health", "kl_per_latent": [1.0]},
        *({"step": step, "group": "held-out", "psnr_db": 20.0 + step, "num_frames": 256} for step in (2, 4)),
    )
    loss, psnr = read_curves(tmp_path)
    assert (loss.title, psnr.title) == ("Loss of the training's batches", "PSNR of held-out frames (dB)")
    assert (loss.steps.tolist(), loss.values.tolist()) == ([1, 2, 3], [9, 8, 7])
    assert (psnr.steps.tolist(), psnr.values.tolist()) == ([2, 4], [22, 24])


def test_many_points_become_means_of_neighbours(tmp_path: Path) -> None:
    write(tmp_path, *({"step": step, "group": "train", "loss": float(step)} for step in range(2 * MAX_POINTS)))
    (loss,) = read_curves(tmp_path)
    np.testing.assert_array_equal(loss.values, np.arange(MAX_POINTS) * 2 + 0.5)
    np.testing.assert_array_equal(loss.steps, loss.values)


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        '{"group": "train"}',
        '{"step": "1", "group": "train", "loss": 1.0}',
        '{"step": 5, "group": "train", "loss": NaN}',
        '"group": "train"',
        '{"step": 9007199254740993, "group": "train", "loss": 1.0}',
        '{"step": -1, "group": "train", "loss": 1.0}',
        '{"step": 5, "group": "train", "loss": 99999999999999999999999999999999}',
        '{"step": 5, "group": "train", "loss": 1e308}',
        '{"step": 5, "group": ["train"], "loss": 1.0}',
    ],
)
def test_a_damaged_line_is_skipped(tmp_path: Path, damaged: str) -> None:
    good = [{"step": step, "group": "train", "loss": 1.0} for step in (1, 2)]
    (loss,) = read_curves(write(tmp_path, good[0], damaged, good[1]))
    assert loss.steps.tolist() == [1, 2]


def test_without_a_record_there_is_no_curve(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == []
    assert read_curves(write(tmp_path, {"step": 1, "group": "train", "loss": 1.0})) == []
    (tmp_path / METRICS_NAME).unlink()
    (tmp_path / METRICS_NAME).mkdir()
    assert read_curves(tmp_path) == []


@pytest.mark.parametrize(("first", "second"), [(1e30, -1e30), (0.0, 5e-324), (1.0, 1.0)])
def test_whatever_a_record_holds_can_be_drawn(tmp_path: Path, first: float, second: float) -> None:
    (loss,) = read_curves(write(tmp_path, *({"step": n, "group": "train", "loss": x} for n, x in enumerate((first, second)))))
    assert len(line_chart(loss.steps, loss.values, title=loss.title).line) == 2
