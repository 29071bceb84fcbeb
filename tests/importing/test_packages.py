"""The packages of the extra `import` are needed only for what is read with them, and their absence is said in a line."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.importing.test_lerobot import write
from tests.importing.test_stable_worldmodel import toy, write_hdf5, write_lance
from tests.importing.test_video import write_rides
from tests.importing.toy import run_import
from worldmodel_v.errors import PackageMissing
from worldmodel_v.importing.lerobot import LeRobotImportConfig
from worldmodel_v.importing.tables import read_table

REMEDY = r"pip install 'worldmodel_v\[import\]'"


def test_each_is_named_where_it_is_missing(stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rides = write_rides(tmp_path / "rides", stamp_rollouts, table="npz")
    lerobot = write(tmp_path / "lerobot", stamp_rollouts, "image")
    table, rows = write_lance(tmp_path / "toy.lance", toy(stamp_rollouts)), toy(stamp_rollouts)
    for package in ("av", "pyarrow", "lance"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageMissing, match=f"ride_5.mp4: reading a video needs av; {REMEDY}"):
        run_import("video", rides, tmp_path / "out", action=("steer", "gas"))
    with pytest.raises(PackageMissing, match=f"lerobot: reading it needs pyarrow; {REMEDY}"):
        LeRobotImportConfig(from_=lerobot, out=tmp_path / "out").open()
    with pytest.raises(PackageMissing, match=f"toy.lance: reading it needs lance; {REMEDY}"):
        run_import("stable-worldmodel", table, tmp_path / "out")
    run_import("stable-worldmodel", write_hdf5(tmp_path / "toy.h5", rows), tmp_path / "out")
    assert [*read_table(rides / "ride_5.npz")] == ["steer", "gas", "reward", "terminated", "truncated", "seed", "lap"]
    np.savetxt(tmp_path / "table.csv", np.ones((2, 2)), delimiter=",", header="a,b", comments="")
    with pytest.raises(PackageMissing, match=f"table.csv: reading it needs pyarrow; {REMEDY}"):
        read_table(tmp_path / "table.csv")
