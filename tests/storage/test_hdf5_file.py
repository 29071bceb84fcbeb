"""HDF5 files that are written to disk as they grow: what is written is there, and a disk that fails is an error."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders import run_python
from worldmodel_v.storage.hdf5_file import EVERYWHERE, add_column, create_hdf5, with_plugin


@pytest.mark.parametrize("filters", [EVERYWHERE, with_plugin()])
def test_what_is_written_is_there_compressed_and_with_checksums(filters: dict, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 2, (100, 8, 8, 3), dtype=np.uint8)
    with create_hdf5(tmp_path / "file.h5") as (file, check):
        column = add_column(file.create_group("group"), "frames", frames.shape, np.uint8, filters)
        for first in range(0, 100, 30):
            column[first : first + 30] = frames[first : first + 30]
            check()
    with h5py.File(tmp_path / "file.h5", swmr=True) as file:
        found = file["group/frames"]
        np.testing.assert_array_equal(found[:], frames, strict=True)
        assert found.chunks == (64, 8, 8, 3)
        assert found.fletcher32
        assert found.id.get_storage_size() < frames.nbytes / 2


def test_the_blocks_own_error_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), create_hdf5(tmp_path / "file.h5"):
        raise ZeroDivisionError


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from worldmodel_v.storage.hdf5_file import EVERYWHERE, add_column, create_hdf5
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
rng, written = np.random.default_rng(0), 0
try:
    with create_hdf5(Path(sys.argv[1])) as (file, check):
        for number in range(20):
            add_column(file, str(number), (1000, 100), np.uint8, EVERYWHERE)[:] = rng.integers(0, 256, (1000, 100))
            written += 1
            if sys.argv[2] == "checked":
                check()
except OSError as error:
    print(error.strerror, written)
"""


@pytest.mark.parametrize(("when", "written"), [("checked", range(1, 6)), ("at the end", [20])])
def test_a_disk_that_fails_is_an_error_at_the_check_or_at_the_end(when: str, written: range, tmp_path: Path) -> None:
    """Without our file under it, HDF5 ends the process with a segmentation fault here."""
    said = run_python(LIMITED, tmp_path / "file.h5", when)
    assert said in [f"File too large {number}" for number in written]
