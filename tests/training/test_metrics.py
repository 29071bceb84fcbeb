"""The record of a training holds whole lines, and nothing but numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.builders import FullDisk
from worldmodel_v.errors import ModelNotUsable, WriteFailed
from worldmodel_v.evaluation import to_png
from worldmodel_v.training import metrics


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 1e999, "group": "train", "loss": 1.0}', "its step is inf"),
        ('{"step": 1.5, "group": "train", "loss": 1.0}', "its step is 1.5"),
        ('{"step": 1, "group": "train", "loss": 1e999}', "loss is inf"),
        ('{"step": 1, "group": "train", "loss": NaN}', "loss is nan"),
    ],
)
def test_a_training_whose_record_holds_no_number_is_refused_by_name(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    for read in (metrics.last_records, lambda folder: metrics.MetricsLog(folder, 3)):
        with pytest.raises(ModelNotUsable, match=re.escape(f"metrics.jsonl: not a record of a training ({reason}); ")):
            read(tmp_path)


def test_a_line_that_the_disk_does_not_take_leaves_nothing_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_tensorboard", lambda *_: None)
    with monkeypatch.context() as patch:
        FullDisk(patch, "write", fail_at=2)
        log = metrics.MetricsLog(tmp_path, 0)
        log.write(1, "train", {"loss": 1.0})
        with pytest.raises(WriteFailed, match=r"metrics\.jsonl: could not write"):
            log.write(2, "train", {"loss": 2.0})
        log.write(3, "train", {"loss": 3.0})
        log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 3]


def test_what_the_board_does_not_take_is_a_failed_write_and_leaves_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        FullDisk(patch, "write", fail_at=4)  # the board's head and beginning, a line, its number
        log = metrics.MetricsLog(tmp_path, 0)
        with pytest.raises(WriteFailed, match=r"tensorboard: could not write \(No space left on device\)"):
            log.write(1, "train", {"loss": 1.0})
        log.write(2, "train", {"loss": 2.0})
        log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(2, 2.0)]


def test_the_board_shows_the_pictures_of_a_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    png = to_png(np.zeros((6, 10, 3), np.uint8))
    log = metrics.MetricsLog(tmp_path, 0)
    log.pictures(5, {"prior": png})
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    (event,) = board.Images("samples/prior")
    assert (event.step, event.width, event.height, event.encoded_image_string) == (5, 10, 6, png)
