"""Further columns that the user leaves out: those that no dataset can hold do not end the import any more."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.importing import test_lerobot, test_stable_worldmodel
from tests.importing.recorders import record_ctallec, record_hardmaru, record_plain, resaved
from tests.importing.test_video import columns_of, write_pictures
from tests.importing.toy import episodes, run_import
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing import ImportReport
from worldmodel_v.storage import open_dataset


def extras(out: Path) -> set[str]:
    return {column.name for column in open_dataset(out).schema.by_role("extra")}


def ragged(num_rows: int) -> Any:
    return pa.array([[1.0] * (1 + row % 3) for row in range(num_rows)])


def require_left_out(name: str, source: Path, tmp_path: Path, column: str, **options: Any) -> ImportReport:
    """The column is refused as it is, and without it there are the others."""
    with pytest.raises(DatasetNotUsable, match=rf"; if it is a further column, leave it out with without='{column}'$"):
        run_import(name, source, tmp_path / "out", **options)
    report = run_import(name, source, tmp_path / "without", without=(column,), **options)
    assert f"{column}: left out (as asked)" in report.notes
    assert not any(note.startswith(column) and "asked" not in note for note in report.notes)
    assert column not in extras(tmp_path / "without")
    return report


def test_rows_of_a_table_that_differ_in_length(stamp_rollouts: Path, tmp_path: Path) -> None:
    source, options = tmp_path / "rides", {"action": ("steer", "gas")}
    source.mkdir()
    for number, episode in enumerate(episodes(stamp_rollouts)[:2]):
        write_pictures(source / f"{number}", episode.pixels)
        columns = columns_of(episode, episode.num_rows) | {"lidar": ragged(episode.num_rows)}
        pyarrow.parquet.write_table(pa.table(columns), source / f"{number}.parquet")
    require_left_out("video", source, tmp_path, "lidar", **options)
    assert extras(tmp_path / "without") == {"lap"}
    with pytest.raises(ConfigError, match=r"0.parquet: without='gas': there is no such further column; expected lap, lidar$"):
        run_import("video", source, tmp_path / "other", without=("lidar", "gas"), **options)


def test_rows_of_lance_that_differ_in_length(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = test_stable_worldmodel.write_lance(tmp_path / "toy.lance", test_stable_worldmodel.toy(stamp_rollouts))
    table = lance.dataset(source).to_table()
    lance.write_dataset(table.append_column("lidar", ragged(len(table))), source, mode="overwrite")
    require_left_out("stable-worldmodel", source, tmp_path, "lidar")
    assert extras(tmp_path / "without") == {"id", "state"}


def num_frames(file: Path) -> int:
    with np.load(file) as arrays:
        return len(arrays["pixels"])


def test_an_array_whose_rows_have_another_shape_in_a_later_file(tmp_path: Path) -> None:
    record_plain(tmp_path / "recorded")
    for number, file in enumerate(sorted((tmp_path / "recorded").iterdir())):
        resaved(file, lidar=np.zeros((num_frames(file), 3 + number)), speed=np.zeros(num_frames(file)))
    require_left_out("npz", tmp_path / "recorded", tmp_path, "lidar")
    assert extras(tmp_path / "without") == {"speed"}


def test_more_columns_than_a_dataset_has(tmp_path: Path) -> None:
    record_plain(tmp_path / "recorded")
    for file in (tmp_path / "recorded").iterdir():
        resaved(file, **{f"column_{number}": np.zeros(num_frames(file)) for number in range(36)})
    with pytest.raises(DatasetNotUsable, match=r"43 columns, expected at most 42; leave some out with without$"):
        run_import("npz", tmp_path / "recorded", tmp_path / "out")
    run_import("npz", tmp_path / "recorded", tmp_path / "out", without=("column_3",))
    assert len(extras(tmp_path / "out")) == 35


def test_a_column_of_lerobot(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = test_lerobot.write(tmp_path / "lerobot", stamp_rollouts, "image")
    report = run_import("lerobot", source, tmp_path / "out", without=("observation.touch", "comment"))
    assert {"observation.touch: left out (as asked)", "comment: left out (as asked)"} < {*report.notes}
    assert "observation.touch" not in extras(tmp_path / "out")


@pytest.mark.parametrize(("name", "record"), [("hardmaru", record_hardmaru), ("ctallec", record_ctallec)])
def test_formats_without_further_columns_have_none_to_leave_out(name: str, record: Any, tmp_path: Path) -> None:
    record(tmp_path / "recorded")
    with pytest.raises(ConfigError, match=r"without='speed': there is no such further column; expected nothing$"):
        run_import(name, tmp_path / "recorded", tmp_path / "out", without=("speed",))
