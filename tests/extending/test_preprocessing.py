"""Another preprocessing, from outside the package: recorded, trained on, and used by the controller's encoder as well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.envs.stamp import read_stamps
from worldmodel_v.storage import open_dataset

SCRIPT = Path(__file__).with_name("see_as_recorded.py")


@pytest.mark.parametrize(
    ("options", "made"),
    [
        (
            ("--frame-size", "96", "--fit", "letterbox", "--crop", "8:56,0:64"),
            {"crop": "8:56,0:64", "frame_height": 96, "frame_width": 96, "resize": "area", "fit": "letterbox"},
        ),
        (
            ("--frame-size", "24x40", "--resize", "bilinear"),
            {"crop": "full", "frame_height": 24, "frame_width": 40, "resize": "bilinear", "fit": "stretch"},
        ),
    ],
)
def test_a_controller_sees_frames_as_they_were_recorded(
    tmp_path: Path, options: tuple[str, ...], made: dict[str, object]
) -> None:
    """The script compares the latents of the environment's own frames with the recorded ones."""
    command = [sys.executable, SCRIPT, tmp_path, "worldmodel_v/Stamp-v0", *options]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    recorded = json.loads((tmp_path / "rollouts" / "dataset.json").read_text())["spec"]
    assert recorded.items() >= made.items()
    trained_on = load_vae(tmp_path / "vae").trained_on
    assert trained_on is not None
    assert vars(trained_on.preprocessing) == made
    pixels = open_dataset(tmp_path / "rollouts").episode(1).pixels
    assert pixels.shape[1:] == (made["frame_height"], made["frame_width"], 3)
    if made["fit"] == "letterbox":
        assert not pixels[:, :12].any()
        assert not pixels[:, 84:].any()
        pixels = pixels[:, 12:84]
    assert [read_stamps(frame)[0] for frame in pixels] == list(range(len(pixels)))
