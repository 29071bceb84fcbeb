"""Plain npz files, and the writer of all npz files."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders import files_in
from worldmodel_v.export import export
from worldmodel_v.export.npz_file import create_npz, write_npz
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.storage import open_dataset


@pytest.mark.parametrize("kind", ["rollouts", "latents", "discrete"])
def test_every_column_of_every_episode_is_there_as_it_is(
    kind: str, stamp_rollouts: Path, unequal_latents: Path, discrete_rollouts: Path, tmp_path: Path
) -> None:
    data = {"rollouts": stamp_rollouts, "latents": unequal_latents, "discrete": discrete_rollouts}[kind]
    report = export(NpzConfig(data=data, out=tmp_path / "out"))
    assert report.notes == []
    files = sorted(file for file in (tmp_path / "out").iterdir() if file.suffix == ".npz")
    assert [file.name for file in files] == [f"{i:06d}.npz" for i in range(8)]
    for number, file in enumerate(files):
        episode = open_dataset(data).episode(number)
        with np.load(file) as found:
            assert set(found) == {*episode.columns, "state_names"}
            assert tuple(found["state_names"]) == episode.state_names
            for name, column in episode.columns.items():
                np.testing.assert_array_equal(found[name], column, strict=True)


def test_the_same_dataset_gives_the_same_bytes(unequal_latents: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(NpzConfig(data=unequal_latents, out=tmp_path / name))
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64, np.bool_])
def test_an_array_written_in_parts_is_the_array(dtype: type, tmp_path: Path) -> None:
    array = np.arange(24).reshape(4, 3, 2).astype(dtype)
    with create_npz(tmp_path / "parts.npz") as npz:
        npz.add("array", dtype, array.shape, (part for part in (array[:1], array[1:1], array[1:])))
        npz.add("other", dtype, (3, 4, 2), [array.transpose(1, 0, 2)])
    write_npz(tmp_path / "whole.npz", {"array": array, "scalar": np.array(7), "texts": np.array(["a", "bc"])})
    with np.load(tmp_path / "parts.npz") as parts, np.load(tmp_path / "whole.npz") as whole:
        np.testing.assert_array_equal(parts["array"], array, strict=True)
        np.testing.assert_array_equal(parts["other"], array.transpose(1, 0, 2), strict=True)
        np.testing.assert_array_equal(whole["array"], array, strict=True)
        assert int(whole["scalar"]) == 7
        assert whole["texts"].tolist() == ["a", "bc"]


def test_parts_that_do_not_fill_the_shape_are_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="array: parts do not fill"), create_npz(tmp_path / "a.npz") as npz:
        npz.add("array", np.uint8, (3, 2), [np.zeros((2, 2))])
