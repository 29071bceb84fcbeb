"""A repository of the Hugging Face Hub: the folder as the Hub's own packages read it, and its upload to a stand-in."""

import io
import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from tests.builders import files_in, make_episode, rollout_spec
from tests.commands import run
from tests.hub_server import TOKEN, FakeHub, fake_hub
from worldmodel_v import SelectConfig, load_vae, open_dataset, select, verify
from worldmodel_v.cli import inspect
from worldmodel_v.errors import ConfigError, ModelNotUsable, OutputNotUsable, PackageMissing, ShardDamaged
from worldmodel_v.export.hub import HubConfig, HubReport, export_hub
from worldmodel_v.export.hub_card import size_category
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import DatasetWriter, build_shard

OWN = ("dataset.json", "index.jsonl", "shards/")


def shared(out: Path, **settings: object) -> HubReport:
    return export_hub(HubConfig(**{"repo": "me/stamp", "out": out, **settings}))


@pytest.fixture(scope="module")
def rollouts_repo(stamp_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy rollouts, read-only."""
    out = tmp_path_factory.mktemp("hub") / "rollouts"
    shared(out, data=stamp_rollouts, license="cc-by-4.0")
    return out


def test_the_datasets_own_files_are_unchanged(rollouts_repo: Path, stamp_rollouts: Path) -> None:
    own = {name: content for name, content in files_in(rollouts_repo).items() if name.startswith(OWN)}
    assert own == {name: content for name, content in files_in(stamp_rollouts).items() if name.startswith(OWN)}
    assert len(own) == 5
    assert verify(open_dataset(rollouts_repo)) == []


def test_load_dataset_reads_the_folder_as_the_card_says(rollouts_repo: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset(str(rollouts_repo), split="train", cache_dir=str(tmp_path))
    dataset = open_dataset(rollouts_repo)
    assert len(rows) == dataset.num_rows
    assert rows["ep_idx"][:] == [episode.episode_id for episode in dataset for _ in range(episode.num_rows)]
    np.testing.assert_array_equal(np.array(rows[30]["pixels"]), np.concatenate([each.pixels for each in dataset])[30])


def test_the_card_is_one_of_a_dataset(rollouts_repo: Path, stamp_rollouts: Path) -> None:
    card = DatasetCard.load(rollouts_repo / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.size_categories == ["n<1K"]
    assert {"worldmodel_v", "world-models", "rollouts"} <= {*card.data.tags}
    assert card.data.configs == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}]
    assert 'open_dataset("hf://datasets/me/stamp")' in card.text
    assert 'load_dataset("me/stamp", split="train")' in card.text
    assert "| `state` | float32 [4] | state | `step, action_stamp, episode_stamp, return_stamp` |" in card.text
    assert f"| spec_hash | `{open_dataset(stamp_rollouts).spec_hash}` |" in card.text
    assert "8 episodes, 183 rows" in card.text
    with Image.open(rollouts_repo / "preview.png") as picture:
        assert picture.size == (3 * 64 + 2 * 2, 64)
    assert "(preview.png)" in card.text


def test_the_licence_of_what_was_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, licence in enumerate(("mit", "cc-by-nc-4.0", None)):
        record = {"format": "npz", "options": {}, "licence": licence, "lacks": [], "num_files": number, "files": {}}
        spec = rollout_spec(imported=record | {"files_sha256": f"{number}" * 64})
        with DatasetWriter(tmp_path / f"{number}", spec) as writer:
            writer.commit(0, build_shard([make_episode(0)], spec_hash=spec.hash))
    select(SelectConfig(data=[tmp_path / f"{number}" for number in range(3)], out=tmp_path / "all"))
    report = shared(tmp_path / "out", data=tmp_path / "all", license="mit")
    assert report.notes == ["it was imported from what has another licence than the card: cc-by-nc-4.0"]
    text = "npz, licence: mit; npz, licence: cc-by-nc-4.0; npz, licence: not named"
    assert f"| imported from | `{text}` |" in DatasetCard.load(tmp_path / "out" / "README.md").text
    monkeypatch.setattr(sys, "argv", ["wm-inspect", str(tmp_path / "all")])
    monkeypatch.setenv("COLUMNS", "400")
    inspect.main()
    assert "from npz, 1 file (list 111111111111…), licence cc-by-nc-4.0, lacks nothing" in capsys.readouterr().out


def test_latents_say_which_vae_made_them(stamp_latents: Path, tmp_path: Path) -> None:
    report = shared(tmp_path / "out", data=stamp_latents)
    assert (report.kind, report.url) == ("dataset", None)
    assert report.notes == ["the card names no licence; license='cc-by-4.0' would name one"]
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license is None
    dataset = open_dataset(stamp_latents)
    assert f"| vae_sha256 | `{dataset.spec.vae_sha256}` |" in card.text
    assert "every 4th episode of a collection" in card.text
    with Image.open(tmp_path / "out" / "preview.png") as picture:
        assert picture.size == (dataset[0].num_rows * 4, 8 * 4)
    assert report.upload_with == f"hf upload me/stamp {tmp_path}/out . --repo-type dataset"


def test_a_vae_is_a_model_with_its_figures(stamp_vae: Path, tmp_path: Path) -> None:
    report = shared(tmp_path / "out", vae=stamp_vae, license="mit", private=True)
    assert report.kind == "model"
    assert report.upload_with.endswith(" . --repo-type model --private")
    assert load_vae(tmp_path / "out").sha256 == load_vae(stamp_vae).sha256
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.license) == ("worldmodel_v", "mit")
    heldout = json.loads((stamp_vae / "heldout.json").read_text())["heldout"]
    assert f"| psnr, held-out frames | `{heldout['psnr_db']:.2f} dB` |" in card.text
    assert {"README.md", "vae.safetensors", "config.json", "heldout.json", "reconstructions.png"} == {
        *files_in(tmp_path / "out")
    }


def test_figures_of_other_weights_are_left_out(stamp_vae: Path, tmp_path: Path) -> None:
    vae = tmp_path / "vae"
    vae.mkdir()
    for name in ("vae.safetensors", "config.json", "reconstructions.png"):
        (vae / name).write_bytes((stamp_vae / name).read_bytes())
    (vae / "heldout.json").write_text(json.dumps({"vae_sha256": "0" * 64, "heldout": {"psnr_db": 99.0}}))
    shared(tmp_path / "out", vae=vae)
    assert {"README.md", "vae.safetensors", "config.json"} == {*files_in(tmp_path / "out")}
    assert "psnr" not in (tmp_path / "out" / "README.md").read_text()


def test_a_strangers_texts_are_code_and_nothing_else(tmp_path: Path) -> None:
    episode = replace(make_episode(0, 3), policy="random")
    spec = rollout_spec(episode.schema, env="`](x) | <b>\n---\nlicense: mit", policy="random")
    with DatasetWriter(tmp_path / "data", spec) as writer:
        writer.commit(0, build_shard([episode], spec_hash=spec.hash))
    shared(tmp_path / "out", data=tmp_path / "data")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license is None
    assert r"| env | `'](x) \| <b>\n---\nlicense: mit` |" in card.text


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5 * 10**6, "1M<n<10M"), (10**8, "100M<n<1B")]
)
def test_sizes_are_the_hubs(rows: int, name: str) -> None:
    assert size_category(rows) == name


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "hub: shares one thing: give data or vae"),
        ({"data": "a", "vae": "b"}, "hub: shares one thing: give data or vae"),
        (
            {"data": "a", "repo": "stamp"},
            "repo: expected USER/NAME, of letters and digits, with single ._- within, not ending in .git, got 'stamp'",
        ),
        ({"data": "a", "repo": "me/a b"}, "repo: expected USER/NAME"),
        ({"data": "a", "license": "MIT License"}, "license: expected one of the Hub's names, such as mit or cc-by-4.0"),
        ({"data": "a", "out": "a/hub"}, "out='a/hub': lies in what it is to export"),
        ({"vae": "a", "out": "a"}, "out='a': lies in what it is to export"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HubConfig(**{"repo": "me/stamp", "out": "out", **settings})
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    "repo", ["a/b", "A_b/c.d-e", "_a/b_", "a/b.git", "a/b..c", "a--x/b", "a/b-", "a/b.", "a./b", "a/-b", "é/b", "a"]
)
def test_names_of_repositories_are_those_of_the_hub(repo: str) -> None:
    """Otherwise the directory is written, and its upload fails."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        is_valid = False
    else:
        is_valid = "/" in repo
    with nullcontext() if is_valid else pytest.raises(ConfigError, match="repo: expected USER/NAME"):
        HubConfig(repo=repo, data="a", out="out")


def test_damage_leaves_nothing(stamp_rollouts: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, content in files_in(stamp_rollouts).items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    with (data / "shards/000001.h5").open("r+b") as file:
        file.seek(-9, io.SEEK_END)
        file.write(b"!")
    with pytest.raises(ShardDamaged):
        shared(tmp_path / "out", data=data)
    with pytest.raises(ModelNotUsable):
        shared(tmp_path / "out", vae=tmp_path / "no")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("42")
    with pytest.raises(OutputNotUsable, match=r"holds 'thesis\.tex' already"):
        shared(tmp_path / "out", data=stamp_rollouts)


def test_an_upload_without_the_package_says_how_to_install_it(
    stamp_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        PackageMissing, match=r"needs huggingface_hub, which is not installed; pip install 'worldmodel_v\[hub\]'$"
    ):
        shared(tmp_path / "out", vae=stamp_vae, upload=True)
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_the_hubs_extra_is_named_before_the_dataset_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PackageMissing, match=r"needs pyarrow, which is not installed; pip install 'worldmodel_v\[hub\]'$"):
        shared(tmp_path / "out", data=tmp_path / "none")
    assert not (tmp_path / "out").exists()


# The upload


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def account(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who is logged in there."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}


def upload(*words: object, environment: dict[str, str], code: int = 0) -> tuple[str, str]:
    return run("wm-export", "hub", "--upload", "--repo", "me/stamp", *words, code=code, **environment)


READ_BACK = """
import sys
import datasets
from worldmodel_v import open_dataset, verify
dataset = open_dataset("hf://datasets/me/stamp")
assert verify(dataset) == []
rows = datasets.load_dataset("me/stamp", split="train")
print(len(dataset), len(rows), rows.features["pixels"], dataset[-1].seed)
"""


def test_what_is_uploaded_is_read_back(hub: FakeHub, account: dict[str, str], stamp_rollouts: Path, tmp_path: Path) -> None:
    said, _ = upload("--data", stamp_rollouts, "--out", tmp_path / "out", environment=account)
    assert said.splitlines()[-1] == f"uploaded to {hub.url}/datasets/me/stamp"
    assert hub.files["datasets/me/stamp"].pop(".gitattributes")
    assert hub.files["datasets/me/stamp"] == files_in(tmp_path / "out")
    assert hub.private == {"datasets/me/stamp": False}
    assert hub.commits[-1] == ["index.jsonl"]
    (tmp_path / "read.py").write_text(READ_BACK)
    told, _ = run(tmp_path / "read.py", **account)
    dataset = open_dataset(stamp_rollouts, RolloutSpec)
    assert told.split() == ["8", str(dataset.num_rows), "Image(mode=None,", "decode=True)", str(dataset[-1].seed)]


def test_a_smaller_dataset_takes_the_place_of_a_larger_one(
    hub: FakeHub, account: dict[str, str], stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    hub.files["datasets/me/stamp"] = {"notes.md": b"mine", "data/000009.parquet": b"old", "shards/000009.h5": b"old"}
    upload("--data", stamp_latents, "--out", tmp_path / "out", "--private", environment=account)
    assert hub.files["datasets/me/stamp"].pop("notes.md") == b"mine"
    assert hub.files["datasets/me/stamp"] == files_in(tmp_path / "out")
    assert {"-data/000009.parquet", "-shards/000009.h5"} <= {*hub.commits[0]}


def test_a_vae_is_uploaded_as_a_model(hub: FakeHub, account: dict[str, str], stamp_vae: Path, tmp_path: Path) -> None:
    said, _ = upload("--vae", stamp_vae, "--out", tmp_path / "out", "--private", environment=account)
    assert said.splitlines()[-1] == f"uploaded to {hub.url}/me/stamp"
    assert hub.private == {"models/me/stamp": True}
    assert hub.files["models/me/stamp"]["vae.safetensors"] == (stamp_vae / "vae.safetensors").read_bytes()


@pytest.mark.parametrize("token", [None, "hf_of_yesterday"])
def test_who_is_not_logged_in_is_told_so_before_anything_is_written(
    token: str | None, account: dict[str, str], stamp_vae: Path, tmp_path: Path
) -> None:
    environment = account | {"HF_TOKEN": token or ""}
    said, line = upload("--vae", stamp_vae, "--out", tmp_path / "out", environment=environment, code=2)
    assert (said, line.count("\n")) == ("", 1)
    assert (
        "--upload: nobody is logged in to the Hugging Face Hub, or the token is not valid; log in with `hf auth login`" in line
    )
    assert not (tmp_path / "out").exists()


def test_who_may_not_write_there_is_told_so_and_keeps_the_folder(
    hub: FakeHub, account: dict[str, str], stamp_vae: Path, tmp_path: Path
) -> None:
    hub.refused = {"/commit/": 403}
    said, told = upload("--vae", stamp_vae, "--out", tmp_path / "out", "--quiet", environment=account, code=2)
    assert (said, told.count("\n")) == ("", 1)
    assert "--repo me/stamp: this account may not write there (" in told
    assert f"{tmp_path}/out is complete; upload it later with: hf upload me/stamp {tmp_path}/out . --repo-type model" in told
    assert "vae.safetensors" in files_in(tmp_path / "out")


def test_a_hub_that_cannot_be_reached_is_a_failure_of_one_line(
    account: dict[str, str], stamp_vae: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        environment = account | {"HF_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        said, line = upload("--vae", stamp_vae, "--out", tmp_path / "out", environment=environment, code=1)
    assert (said, line.count("\n")) == ("", 1)
    assert re.search(
        r"me/stamp: the Hugging Face Hub does not do it \((ConnectError|ConnectionError): ", line
    )  # httpx, requests
    assert not (tmp_path / "out").exists()
