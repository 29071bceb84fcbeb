"""Datasets behind a URL on the command line: what takes one, what does not, and the exit codes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_bad_input import Refusal, refuse
from tests.serving import Served, served
from worldmodel_v.cli import inspect
from worldmodel_v.cli.inspect import InspectConfig
from worldmodel_v.cli.main import parse
from worldmodel_v.encoding import EncodeConfig
from worldmodel_v.evaluation import EvalConfig
from worldmodel_v.export import FORMATS
from worldmodel_v.export.model import ModelExportConfig
from worldmodel_v.storage import remote
from worldmodel_v.training import TrainConfig

__all__ = ["refuse"]

URL = "memory://place/rollouts"


@pytest.fixture
def server(stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The folder of the toy rollouts; requests are made again at once."""
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    with served(stamp_rollouts.parent) as files:
        yield files


@pytest.mark.parametrize("config", [TrainConfig, EncodeConfig, EvalConfig, FORMATS["npz"], ModelExportConfig])
def test_what_reads_takes_a_url_or_a_path(config: type, tmp_path: Path) -> None:
    vae = ["--vae", "vae"] if "vae" in config.__dataclass_fields__ else []
    for words, expected in ((f"{URL}/", URL), ("there//rollouts", Path("there/rollouts"))):
        parsed, _ = parse("wm", config, args=["--data", words, *vae, "--out", str(tmp_path)])
        (place,) = parsed.data if config in (TrainConfig, EncodeConfig, EvalConfig) else (parsed.data,)
        assert place == expected
        assert type(place) is type(remote.RemotePath(URL) if expected == URL else Path())


def test_inspect_takes_urls(capsys: pytest.CaptureFixture[str]) -> None:
    parsed, _ = parse("wm-inspect", InspectConfig, args=[URL, "--data", URL])
    assert (parsed.path, parsed.data) == (URL, (URL,))
    with pytest.raises(SystemExit):
        parse("wm-inspect", InspectConfig, args=["--help"])
    assert "PATH|URL" in capsys.readouterr().out


def test_inspect_shows_and_verifies_a_dataset_behind_a_url(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "frames.png"

    def show(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["wm-inspect", f"{server.url}/rollouts", "--quiet", *map(str, options)])
        inspect.main()
        return capsys.readouterr().out

    facts = json.loads(show("--json", "--verify", "--preview", picture))
    assert (facts["kind"], facts["path"], facts["run"], facts["episodes"]) == ("rollouts", f"{server.url}/rollouts", None, 8)
    assert facts["verified"] == "3 shards, 8 episodes, 183 rows: every byte as indexed"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{server.url}/rollouts" in show("--state")


def test_a_server_that_fails_is_no_mistake_of_the_users(server: Served, refuse: Refusal) -> None:
    server.status = 500
    line = refuse("wm-inspect", f"{server.url}/rollouts", code=1)
    assert line.startswith(f"wm-inspect: {server.url}/rollouts/dataset.json: cannot be reached (ClientResponseError: 500")
    assert line.endswith("look at the network and the server, then run again\n")


def test_urls_that_are_wrong(server: Served, refuse: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "absent: holds no dataset.json; give a directory that" in refuse("wm-inspect", f"{server.url}/absent")
    assert "needs a package that is not installed: Install s3fs" in refuse("wm-inspect", "s3://bucket/rollouts")
    options = ["--data", f"{server.url}/rollouts", "--out", "s3://bucket/vae"]
    assert "--out s3://bucket/vae: is a URL, and only --data may be one; give a local directory" in refuse("wm-train", *options)
    assert "--out s3://bucket/vae: is a URL" in refuse("wm-collect", "--out", "s3://bucket/vae")
    assert list(tmp_path.iterdir()) == []
