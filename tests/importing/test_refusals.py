"""Files of strangers, damaged or not what they should be: one line names the file, what was expected and what was found."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.importing.recorders import record_ctallec, record_hardmaru, record_plain, resaved
from worldmodel_v.errors import DatasetNotUsable, UsageError
from worldmodel_v.importing import FORMATS, import_recordings
from worldmodel_v.importing.npz_files import read_arrays
from worldmodel_v.storage import open_dataset

RECORD: dict[str, Callable[[Path], Any]] = {"npz": record_plain, "hardmaru": record_hardmaru, "ctallec": record_ctallec}
FRAMES = {"npz": "pixels", "hardmaru": "obs", "ctallec": "observations"}
ACTIONS = {"npz": "action", "hardmaru": "action", "ctallec": "actions"}


def refused(name: str, folder: Path, **options: object) -> str:
    """The message of an import that is refused; it is the user's to mend, and the recording is as before."""
    config = FORMATS[name](from_=folder, out=folder.parent / "out", alignment=False, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        import_recordings(config)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=RECORD)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    RECORD[name](tmp_path / "recorded")
    return tmp_path / "recorded"


def a_file(folder: Path) -> Path:
    """One that is not the first."""
    return max(folder.rglob("*.npz"), key=lambda path: (path.parent, len(path.name), path.name))


def test_no_directory_and_no_file_in_it(name: str, tmp_path: Path) -> None:
    assert refused(name, tmp_path / "absent").startswith(f"{tmp_path}/absent: no such directory")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._0.npz").write_bytes(b"a file that macOS leaves")
    assert refused(name, tmp_path / "empty").startswith(f"{tmp_path}/empty: holds no .npz file")


def test_a_file_that_is_none_or_is_cut_or_changed(name: str, folder: Path) -> None:
    file = a_file(folder)
    content = file.read_bytes()
    for damaged in (b"", b"no zip", content[:1000], content[: len(content) // 2]):
        file.write_bytes(damaged)
        assert refused(name, folder).startswith(f"{file}: cannot be read: BadZipFile")
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    assert refused(name, folder).startswith(f"{file}: ")


def test_an_array_that_is_missing(name: str, folder: Path) -> None:
    resaved(a_file(folder), **{ACTIONS[name]: None})
    message = refused(name, folder)
    assert message.startswith(f"{a_file(folder)}: expected an array '{ACTIONS[name]}', got the arrays ")
    assert ("name it with action" in message) == (name == "npz")
    assert not (folder.parent / "out").exists()


def test_objects_are_never_loaded(name: str, folder: Path) -> None:
    class Boom:
        def __reduce__(self) -> Any:
            return (Path(folder.parent / "ran").mkdir, ())

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([1], object), allow_pickle=True)
    header = buffer.getvalue()[:128]
    with zipfile.ZipFile(a_file(folder)) as archive:
        arrays = {entry: archive.read(entry) for entry in archive.namelist()}
    arrays[f"{ACTIONS[name]}.npy"] = header + pickle.dumps(Boom())
    with zipfile.ZipFile(a_file(folder), "w") as archive:
        for entry, content in arrays.items():
            archive.writestr(entry, content)
    message = refused(name, folder)
    assert f"{a_file(folder)}: expected an array of numbers '{ACTIONS[name]}', got Python objects (a pickle)" in message
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frames: frames / np.float32(255), "expected frames of uint8, 0 to 255, got float32"),
        (lambda frames: frames[:, :32], "expected frames of (64, 64, 3), as in the first episode, got (32, 64, 3)"),
        (lambda frames: frames[..., :2], "expected frames (rows, H, W), (rows, H, W, 1) or (rows, H, W, 3), got"),
        (lambda frames: frames[:3], "expected"),
        (lambda frames: frames[:0], "expected"),
        (lambda frames: np.uint8(3), "expected"),
    ],
)
def test_frames_of_another_dtype_shape_or_number(name: str, folder: Path, change: Callable[[Any], Any], said: str) -> None:
    with np.load(a_file(folder)) as npz:
        changed = change(npz[FRAMES[name]])
    resaved(a_file(folder), **{FRAMES[name]: changed})
    assert f"{a_file(folder)}: {said}" in refused(name, folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda action: action[:, :1], "expected actions of shape (2,), as their space says, got (1,)"),
        (lambda action: action[:2], "expected"),
        (lambda action: action.astype(np.complex64), "expected an array of numbers"),
        (
            lambda action: np.where(np.arange(len(action))[:, None] == 2, np.nan, action),
            "is [nan, nan]; expected finite numbers",
        ),
        (lambda action: action * np.inf, "inf]; expected finite numbers"),
    ],
)
def test_actions_of_another_shape_number_or_with_none(name: str, folder: Path, change: Callable[[Any], Any], said: str) -> None:
    with np.load(a_file(folder)) as npz, np.errstate(all="ignore"):
        changed = change(npz[ACTIONS[name]])
    resaved(a_file(folder), **{ACTIONS[name]: changed})
    message = refused(name, folder)
    assert message.startswith(f"{a_file(folder)}: ")
    assert said in message


def test_an_episode_that_goes_on_after_its_end(tmp_path: Path) -> None:
    for name, array in (("npz", "terminated"), ("ctallec", "terminals")):
        folder = tmp_path / name
        RECORD[name](folder)
        with np.load(a_file(folder)) as npz:
            ends = npz[array].copy()
        ends[2] = True
        resaved(a_file(folder), **{array: ends})
        assert f"{a_file(folder)}: termina" in (message := refused(name, folder))
        assert "in row 2, and the episode goes on; expected one episode a file" in message


@pytest.mark.parametrize("end", [np.nan, 0.5, -1.0])
@pytest.mark.parametrize(("name", "array"), [("npz", "terminated"), ("npz", "truncated"), ("ctallec", "terminals")])
def test_an_end_that_is_neither_0_nor_1(name: str, array: str, end: float, tmp_path: Path) -> None:
    RECORD[name](tmp_path / "recorded")
    file = a_file(tmp_path / "recorded")
    with np.load(file) as npz:
        ends = np.where(np.arange(len(npz[array])) == len(npz[array]) - 1, end, 0)
    resaved(file, **{array: ends})
    assert refused(name, tmp_path / "recorded") == f"{file}: expected {array}: 0 or 1, or false or true, got {end}"


def test_numbers_that_a_column_would_change_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    for number, arrays in enumerate(record_plain(folder)):
        rows = len(arrays["pixels"])
        resaved(folder / f"{number}.npz", half=np.ones(rows, np.float16), single=np.ones(rows, np.float32))
    with np.load(a_file(folder)) as npz:
        kept = dict(npz)
    for name, values, said in (
        ("half", np.full(rows, 1e5), "half: float64 values that float16 cannot hold"),
        ("single", np.full(rows, 2**24 + 1), "single: int64 values that float32 cannot hold"),
        ("reward", np.full(rows - 1, 2**24 + 1), "reward: int64 values that float32 cannot hold"),
        ("action", np.full((rows - 1, 2), 2**24 + 1), "action: int64 values that float32 cannot hold"),
    ):
        resaved(a_file(folder), **kept | {name: values})
        assert refused("npz", folder) == f"{a_file(folder)}: {said}"


def test_rewards_that_are_all_nan_are_lacking(tmp_path: Path) -> None:
    """As this package exports rollouts without them; then no other episode may have one."""
    folder = tmp_path / "recorded"
    for number, arrays in enumerate(record_plain(folder)):
        resaved(folder / f"{number}.npz", reward=np.full_like(arrays["reward"], np.nan))
    report = import_recordings(FORMATS["npz"](from_=folder, out=tmp_path / "none", alignment=False))
    assert "reward: no rewards, so they are NaN in every row" in report.notes
    dataset = open_dataset(tmp_path / "none")
    assert dataset.schema["reward"].absent
    assert dataset.spec.imported["lacks"] == ["seed", "reward"]
    resaved(a_file(folder), reward=arrays["reward"])
    assert refused("npz", folder).startswith(
        f"{a_file(folder)}: expected no rewards (NaN), as in the first episode, got rewards"
    )


def test_a_space_of_a_million_actions_is_judged(tmp_path: Path) -> None:
    """The import was complete, and then failed at the verdict."""
    for number, arrays in enumerate(record_plain(tmp_path / "recorded")):
        resaved(tmp_path / "recorded" / f"{number}.npz", action=np.arange(len(arrays["action"])) * 100_000)
    config = FORMATS["npz"](from_=tmp_path / "recorded", out=tmp_path / "out", action_space="discrete:1000000")
    assert import_recordings(config).alignment == "undecidable"


def test_names_of_the_state_in_another_order(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    for number, arrays in enumerate(record_plain(folder)):
        names = ["x", "y"] if number < 3 else ["y", "x"]
        resaved(folder / f"{number}.npz", state=np.ones((len(arrays["pixels"]), 2), np.float32), state_names=np.array(names))
    expected = "expected the state's names ('x', 'y'), as in the first episode, got ('y', 'x')"
    assert refused("npz", folder) == f"{folder}/3.npz: {expected}"


@pytest.mark.parametrize(("array", "value"), [("reward", "8.0"), ("terminated", "True")])
def test_what_stands_with_the_frame_that_it_led_to(array: str, value: str, tmp_path: Path) -> None:
    """As some recorders have it; without its last row, every episode would silently lose its end."""
    folder = tmp_path / "recorded"
    for number, arrays in enumerate(record_plain(folder)):
        late = np.concatenate([np.zeros(1), np.full(len(arrays["action"]) - 1, 0.0), [8.0]])
        resaved(folder / f"{number}.npz", **{array: late.astype(arrays[array].dtype)})
    assert refused("npz", folder) == (
        f"{folder}/0.npz: {array} is {value} in the row of the final observation, where no action is; expected rewards and "
        "ends in the rows of the actions that brought them; move them one row up"
    )


def test_an_episode_with_a_final_frame_among_others_without(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    recorded = record_plain(folder)
    resaved(folder / "3.npz", pixels=recorded[3]["pixels"][:-1])
    steps = len(recorded[3]["action"])
    assert refused("npz", folder) == (
        f"{folder}/3.npz: expected a frame after the last action, as in the first episode, got {steps} actions and "
        f"{steps} frames"
    )


def test_frames_that_no_architecture_takes(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    for number, arrays in enumerate(record_plain(folder)):
        resaved(folder / f"{number}.npz", pixels=arrays["pixels"][:, :60])
    assert "no architecture trains on frames of 60x64" in (message := refused("npz", folder))
    assert "frame_size" in message


def bomb(path: Path, shape: tuple[int, ...], num_bytes: int) -> None:
    """An archive whose array claims a shape, with so many zeros behind its header."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pixels.npy", header.getvalue() + bytes(num_bytes))


def test_an_array_that_claims_more_than_is_there_takes_no_memory(tmp_path: Path) -> None:
    bomb(tmp_path / "a.npz", (1 << 20, 1 << 12, 1 << 12, 3), 1000)
    with pytest.raises(DatasetNotUsable, match=r"a\.npz: expected 52776558133248 bytes of 'pixels\.npy' .*, got 1000"):
        read_arrays(tmp_path / "a.npz", ["pixels"])


def test_an_array_of_more_than_half_of_the_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb(tmp_path / "a.npz", (100, 100, 100, 3), 3_000_000)
    monkeypatch.setattr("worldmodel_v.importing.npz_files.most_bytes", lambda: 2_000_000)
    with pytest.raises(DatasetNotUsable, match=r"its arrays claim more than half of the memory \(pixels: uint8 \(100, 100"):
        read_arrays(tmp_path / "a.npz", ["pixels"])


def test_an_entry_that_claims_to_grow_beyond_what_zlib_can_is_refused(tmp_path: Path) -> None:
    bomb(tmp_path / "a.npz", (1 << 20,), 1 << 20)
    content = (tmp_path / "a.npz").read_bytes()
    real, claimed = ((1 << 20) + 128).to_bytes(4, "little"), (1 << 31).to_bytes(4, "little")
    assert content.count(real) == 2
    (tmp_path / "a.npz").write_bytes(content.replace(real, claimed))
    with pytest.raises(DatasetNotUsable, match=r"'pixels\.npy' claims to grow from \d+ to 2147483648 bytes"):
        read_arrays(tmp_path / "a.npz", ["pixels"])


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_in_a_file_is_imported_or_refused(part: int, name: str, folder: Path) -> None:
    """Bytes of a sound file changed at random, most of them in its directory and headers."""
    file, rng = a_file(folder), np.random.default_rng(part)
    content = file.read_bytes()
    for _ in range(12):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3).tolist() + (len(content) - rng.integers(1, 400, 3)).tolist():
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        shutil.rmtree(folder.parent / "out", ignore_errors=True)
        try:
            import_recordings(FORMATS[name](from_=folder, out=folder.parent / "out", alignment=False))
        except UsageError as error:
            said = str(error)
        else:
            said = str(file)
        assert said.startswith(str(file))
