"""The toy world's episodes, as other projects' files hold them, and what an import has to make of them."""

import pickle
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.commands import run
from worldmodel_v import steps
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.importing import FORMATS, ImportReport, import_recordings
from worldmodel_v.records import Episode
from worldmodel_v.steps import Step
from worldmodel_v.storage import open_dataset, verify

LOSSLESS = {".mp4": ("libx264rgb", "rgb24", {"crf": "0", "preset": "ultrafast"}), ".mkv": ("ffv1", "bgr0", {"level": "3"})}


def episodes(rollouts: Path) -> list[Episode]:
    dataset = open_dataset(rollouts)
    return [dataset.episode(number) for number in range(dataset.num_episodes)]


def run_import(name: str, source: Path, out: Path, **options: Any) -> ImportReport:
    return import_recordings(FORMATS[name](from_=source, out=out, **{"alignment": False, **options}))


def write_video(path: Path, frames: np.ndarray, *, fps: int = 10, lossy: bool = False, times: list[int] | None = None) -> None:
    """Frames (N, H, W, 3) without loss, or as most videos are; `times` are in milliseconds, by default even."""
    codec, pixels, options = ("libx264", "yuv444p", {"crf": "10"}) if lossy else LOSSLESS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000 if times else fps, options={**options, "g": "7"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = times[number] if times else number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def require_resumed(name: str, source: Path, folder: Path, **options: Any) -> None:
    """An import that is stopped after two shards of two episodes goes on, and gives the bytes of one that is not. A recording
    can be sent to a worker."""
    recording = FORMATS[name](from_=source, out=folder / "whole", **options).open()
    sent = pickle.loads(pickle.dumps(recording))
    np.testing.assert_array_equal(sent.episode(1).action, recording.episode(1).action)
    run_import(name, source, folder / "whole", episodes_per_shard=2, **options)
    synced = 0

    def stop(step: Step) -> None:
        nonlocal synced
        synced += step is Step.LINE_SYNCED
        if synced == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "listener", stop)
        with pytest.raises(KeyboardInterrupt):
            run_import(name, source, folder / "stopped", episodes_per_shard=2, **options)
    assert run_import(name, source, folder / "stopped", episodes_per_shard=2, **options).new_episodes == 4
    for shard in (folder / "whole" / "shards").iterdir():
        assert shard.read_bytes() == (folder / "stopped" / "shards" / shard.name).read_bytes()


def require_refused(words: list[object], *parts: str) -> None:
    """The command says why not in one line, and leaves with 2."""
    _, err = run("wm-import", *words, code=2)
    assert len(err.strip().splitlines()) == 1, err
    for part in parts:
        assert part in err, err


def require_stamps(episode: Episode) -> None:
    """Every action and reward stands between the two frames that show it."""
    for t in range(episode.num_steps):
        step, after = read_stamps(episode.pixels[t])[0], read_stamps(episode.pixels[t + 1])
        assert after[0] == step + 1
        assert after[1] == action_stamp(episode.action[t])
        assert episode.reward[t] == after[1] + step


def require_imported(out: Path, rollouts: Path, *, without_last: bool = False, first: int = 0, has_state: bool = False) -> None:
    """Every row of the dataset at `out` is that of the toy rollouts, from row `first` of each episode on.

    `without_last`: without the last frame and the last action, and cut there.
    """
    expected, found = episodes(rollouts), episodes(out)
    assert len(found) == len(expected)
    assert not verify(open_dataset(out))
    for ours, theirs in zip(found, expected, strict=True):
        rows = slice(first, theirs.num_rows - without_last)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels[rows], strict=True)
        np.testing.assert_array_equal(ours.action[:-1], theirs.action[rows][:-1], strict=True)
        np.testing.assert_array_equal(ours.reward[:-1], theirs.reward[rows][:-1], strict=True)
        ends = (bool(ours.terminated[-2]), bool(ours.truncated[-2]))
        assert ends == ((False, True) if without_last else (bool(theirs.terminated[-2]), bool(theirs.truncated[-2])))
        if has_state:
            np.testing.assert_array_equal(ours.state, theirs.state[rows], strict=True)
            assert ours.state_names == theirs.state_names
        require_stamps(ours)
