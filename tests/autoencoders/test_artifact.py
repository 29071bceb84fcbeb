"""A trained autoencoder on disk: what is saved is what is loaded, and damage is named."""

import hashlib
import json
import random
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from worldmodel_v.autoencoders import TrainedOn, load, save
from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME, describe, from_bytes
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.errors import ConfigError, ModelNotUsable
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.untrusted import canonical_json

COLUMNS = {"mu": "float32 [3]", "logvar": "float32 [3]"}
CONFIG = VAEConfig(frame_height=8, frame_width=8, latent_dim=3, likelihood="bernoulli")


def make_model(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(CONFIG)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with a finished VAE."""
    (tmp_path / WEIGHTS_NAME).write_bytes(save(make_model()))
    return tmp_path


def assert_same_weights(found: VAE, expected: VAE) -> None:
    assert list(found.state_dict()) == list(expected.state_dict())
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name


def test_what_is_saved_is_what_is_loaded(saved: Path) -> None:
    loaded = load_vae(saved)
    assert loaded.model.config == CONFIG
    assert not loaded.model.training
    assert_same_weights(loaded.model, make_model())


def test_the_hash_is_that_of_the_file(saved: Path) -> None:
    assert load_vae(saved).sha256 == hashlib.sha256((saved / WEIGHTS_NAME).read_bytes()).hexdigest()


def test_the_same_weights_give_the_same_bytes_and_others_do_not() -> None:
    assert save(make_model()) == save(make_model())
    assert save(make_model(0)) != save(make_model(1))


def test_saving_what_was_loaded_gives_the_same_bytes(saved: Path) -> None:
    assert save(load_vae(saved).model) == (saved / WEIGHTS_NAME).read_bytes()


def test_a_model_in_other_memory_formats_or_dtypes_is_saved_as_contiguous_float32(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_NAME).write_bytes(save(make_model().to(memory_format=torch.channels_last).bfloat16()))
    assert_same_weights(load_vae(tmp_path).model, make_model().bfloat16().float())


def test_the_file_is_read_by_plain_safetensors(saved: Path) -> None:
    with safe_open(saved / WEIGHTS_NAME, "pt") as file:
        record = json.loads(file.metadata()["autoencoder"])
        assert record.pop("sha256") == hashlib.sha256(canonical_json(record).encode()).hexdigest()
        assert record == {"kind": "gaussian", "config": {**asdict(CONFIG), "condition": []}, "columns": COLUMNS}
        assert torch.equal(file.get_tensor("from_latent.bias"), make_model().from_latent.bias)


TRAINED_ON = TrainedOn("my:World-v0", Preprocessing(crop="0:84,0:96", frame_height=8, frame_width=8, fit="letterbox"))


class TestTrainedOn:
    def test_it_travels_in_the_file(self) -> None:
        content = save(make_model(), TRAINED_ON)
        loaded = from_bytes(content, "here")
        assert loaded.trained_on == TRAINED_ON
        assert_same_weights(loaded.model, make_model())
        assert save(loaded.model, loaded.trained_on) == content
        assert from_bytes(save(make_model()), "here").trained_on is None

    @pytest.mark.parametrize(
        ("before", "after"),
        [(b"letterbox", b"letterbux"), (b"0:84,0:96", b"0:84,0:95"), (b"my:World-v0", b"my:World-v1"), (b'"crop', b'"crap')],
    )
    def test_damage_is_refused(self, before: bytes, after: bytes) -> None:
        content = save(make_model(), TRAINED_ON)
        assert before in content.replace(b"\\", b"")
        damaged = content.replace(before.replace(b'"', b'\\"'), after.replace(b'"', b'\\"'))
        with pytest.raises(ModelNotUsable, match=r"\(its configuration is not what was written\)"):
            from_bytes(damaged, "here")

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"frame_width": 16}, "it was trained on frames of (8, 16), its configuration says (8, 8)"),
            ({"frame_width": "8"}, "frame_width: expected int, found str"),
            ({"resize": "cubic"}, "resize: expected area or bilinear, got 'cubic'"),
            ({"crop": "everything"}, "crop: expected"),
            ({"env": 5}, "the environment that it was trained on has no printable name"),
            ({"env": "a\nb"}, "the environment that it was trained on has no printable name"),
            ({"more": 1}, "unexpected keyword argument 'more'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, changes: dict[str, object], text: str) -> None:
        record = {"env": TRAINED_ON.env, **asdict(TRAINED_ON.preprocessing), **changes}
        with pytest.raises(ModelNotUsable, match=re.escape(text)):
            from_bytes(with_record(trained_on=record), "here")

    def test_which_episodes_were_held_out_travels_too(self) -> None:
        trained_on = TRAINED_ON._replace(holdout_every=8, collections=("a" * 64, "b" * 64))
        assert from_bytes(save(make_model(), trained_on), "here").trained_on == trained_on

    @pytest.mark.parametrize(
        "holdout", [5, {}, {"every": 1, "collections": []}, {"every": "8", "collections": []}, {"every": 8, "collections": [5]}]
    )
    def test_a_hold_out_that_makes_no_sense_is_refused(self, holdout: object) -> None:
        record = {"env": TRAINED_ON.env, **asdict(TRAINED_ON.preprocessing), "holdout": holdout}
        with pytest.raises(ModelNotUsable, match=r"vae\.safetensors is damaged or of another version"):
            from_bytes(with_record(trained_on=record), "here")

    def test_the_same_training_gives_the_same_bytes(self) -> None:
        assert len({save(make_model(), TRAINED_ON) for _ in range(20)}) == 1


class TestMissing:
    def test_a_directory_without_a_vae_is_refused(self, tmp_path: Path) -> None:
        text = f"{tmp_path}: holds no vae.safetensors: it is no directory of wm-train; give a directory that wm-train wrote"
        with pytest.raises(ModelNotUsable, match=f"^{re.escape(text)}$"):
            load_vae(tmp_path)

    def test_a_directory_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotUsable, match="it is no directory of wm-train"):
            load_vae(tmp_path / "missing")

    def test_an_unfinished_training_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint.safetensors").write_bytes(b"anything")
        with pytest.raises(ModelNotUsable, match=r"its training is not finished; train with out=.* to the end"):
            load_vae(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 2000, -1])
    def test_a_truncated_file_is_refused_by_name(self, saved: Path, length: int) -> None:
        file = saved / WEIGHTS_NAME
        file.write_bytes(file.read_bytes()[:length])
        with pytest.raises(ModelNotUsable, match=f"^{re.escape(str(saved))}: vae.safetensors is damaged or of another version"):
            load_vae(saved)

    def test_a_file_with_bytes_behind_its_end_is_refused(self) -> None:
        with pytest.raises(ModelNotUsable):
            from_bytes(save(make_model()) + b"\0", "here")

    def test_a_byte_of_the_header_that_is_no_text_is_refused(self) -> None:
        content = save(make_model())
        for position in range(8 + int.from_bytes(content[:8], "little")):
            damaged = bytearray(content)
            damaged[position] ^= 0xFF
            with pytest.raises(ModelNotUsable, match=r"^here: vae\.safetensors is damaged or of another version"):
                from_bytes(bytes(damaged), "here")

    def test_any_flip_in_the_header_is_refused_or_changes_nothing(self) -> None:
        content, rng, refused = save(make_model()), random.Random(0), 0
        header_end = 8 + int.from_bytes(content[:8], "little")
        for _ in range(500):
            damaged = bytearray(content)
            damaged[rng.randrange(header_end)] ^= rng.randrange(1, 256)
            try:
                loaded = from_bytes(bytes(damaged), "here")
            except ModelNotUsable:
                refused += 1
            else:
                assert loaded.model.config == CONFIG
                assert_same_weights(loaded.model, make_model())
        assert refused > 400

    def test_weights_of_another_dtype_are_refused(self) -> None:
        """One flipped byte turns a tensor's F32 into I32, of the same size."""
        content = save(make_model())
        assert content.count(b'"F32"') == len(make_model().state_dict())
        with pytest.raises(ModelNotUsable):
            from_bytes(content.replace(b'"F32"', b'"I32"', 1), "here")

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b'\\"frame_height\\":8', b'\\"frame_height\\":9'),
            (b'\\"latent_dim\\":3', b'\\"latent_dim\\":4'),
            (b'\\"latent_dim\\":3', b'\\"latent_dim\\":0'),
            (b"bernoulli", b"bernoulla"),
            (b"frame_width", b"frame_widti"),
            (b"__metadata__", b"__metadatb__"),
            (b'\\"config\\"', b'\\"conf1g\\"'),
            (b"encoder.0.bias", b"encoder.9.bias"),
        ],
    )
    def test_a_header_that_says_something_else_is_refused(self, before: bytes, after: bytes) -> None:
        content = save(make_model())
        assert before in content
        with pytest.raises(ModelNotUsable, match=r"^here: vae\.safetensors is damaged or of another version"):
            from_bytes(content.replace(before, after), "here")

    def test_another_kind_of_file_is_refused(self) -> None:
        for content in (b"", b"PK\x03\x04" * 100, b"{}" * 100, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"):
            with pytest.raises(ModelNotUsable):
                from_bytes(content, "here")


def with_record(**changes: object) -> bytes:
    """A file whose metadata were written with changes, as another version might."""
    record = {"kind": "gaussian", "config": {**asdict(CONFIG), "condition": []}, "columns": COLUMNS, **changes}
    digest = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    weights = {name: tensor.contiguous() for name, tensor in make_model().state_dict().items()}
    return safetensors.torch.save(weights, metadata={"autoencoder": canonical_json({**record, "sha256": digest})})


def with_config(**changes: object) -> bytes:
    """A file whose configuration was written with changes."""
    return with_record(config={**asdict(CONFIG), "condition": [], **changes})


def test_an_architecture_of_another_version_is_named() -> None:
    text = (
        "here: vae.safetensors is damaged or of another version (architecture: expected one of conv, ha2018, resnet, mlp, "
        "got 'vit'); restore it, or train again"
    )
    with pytest.raises(ModelNotUsable, match=f"^{re.escape(text)}$"):
        from_bytes(with_config(architecture="vit"), "here")
    assert from_bytes(with_config(), "here").model.config == CONFIG


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "other"}, "its kind is 'other'"),
        ({"kind": 5}, "its kind is 5"),
        ({"kind": "my\nown:Class"}, "its kind is 'my\\nown:Class'"),
        ({"config": []}, "its configuration is no object"),
        ({"config": {"latent_dim": "3"}}, "latent_dim: expected int, found str"),
    ],
)
def test_a_kind_or_configuration_that_makes_no_sense_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ModelNotUsable, match=re.escape(text)):
        from_bytes(with_record(**changes), "here")


def test_another_than_the_one_that_is_asked_for_is_refused(saved: Path) -> None:
    assert isinstance(load(saved, "gaussian").model, VAE)
    text = f"{saved}: autoencoder='json:loads': is not the one that was trained; expected gaussian"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        load(saved, "json:loads")


def test_a_users_own_is_loaded_only_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_NAME).write_bytes(with_record(kind="json:loads"))
    with pytest.raises(ModelNotUsable, match=re.escape("if you trust that module, add autoencoder='json:loads'")):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"autoencoder='json:loads': loads is no subclass of worldmodel_v\.autoencoders"):
        load(tmp_path, "json:loads")
    text = "its autoencoder is json:loads; this needs a VAE, with mu and logvar, as wm-train trains by default"
    with pytest.raises(ModelNotUsable, match=re.escape(text)):
        load_vae(tmp_path)
    described = describe(tmp_path)
    assert (described.kind, described.columns) == ("json:loads", COLUMNS)
    assert described.config["latent_dim"] == 3
    assert described.num_parameters == sum(weight.numel() for weight in make_model().parameters())
    assert described.sha256 == hashlib.sha256((tmp_path / WEIGHTS_NAME).read_bytes()).hexdigest()


def test_a_condition_and_a_learned_sigma_travel_in_the_file() -> None:
    config = VAEConfig(
        frame_height=8, frame_width=8, latent_dim=3, likelihood="calibrated", condition=("speed", "angle"), condition_dim=2
    )
    model = VAE(config)
    model.calibrate(torch.tensor(0.01))
    model.standardise_by(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    loaded = from_bytes(save(model), "here").model
    assert loaded.config == config
    assert torch.equal(loaded.sigma, model.sigma)
    assert loaded.condition_mean.tolist() == [1.0, 2.0]
    assert loaded.condition_std.tolist() == [3.0, 4.0]
