"""What `wm-train` refuses to be asked for, and which settings make a training what it is."""

import json
import re
import sys
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Interval

from worldmodel_v.autoencoders import AutoencoderSettings
from worldmodel_v.autoencoders.gaussian import VAE, VAESettings
from worldmodel_v.errors import ConfigError
from worldmodel_v.training import LoopConfig, TrainConfig, train_config


def config(**changes: object) -> TrainConfig:
    return TrainConfig(data=Path("data"), out=Path("out"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"free_bits": -0.1}, "free_bits: expected at least 0, got -0.1"),
        ({"kl_tolerance": float("nan")}, "kl_tolerance: expected a finite number, at most 1e+30, got nan"),
        ({"beta": float("inf")}, "beta: expected a finite number, at most 1e+30, got inf"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a finite number, at most 1e+30, got inf"),
        ({"free_bits": 1e31}, "free_bits: expected a finite number, at most 1e+30, got 1e+31"),
        (
            {"max_grad_norm": float("inf")},
            "max_grad_norm: expected a finite number, got inf; give a large one, such as 1e9, to never clip",
        ),
        ({"beta_warmup_steps": 10**24}, f"beta_warmup_steps: expected a number below 2^63, got {10**24}"),
        ({"seed": 2**63}, f"seed: expected a number below 2^63, got {2**63}"),
        ({"beta_cycles": 0}, "beta_cycles: expected at least 1, got 0"),
        ({"sigma": 0.0}, "sigma: expected a positive number, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate: expected a positive number, got -1.0"),
        (
            {"sigma": 0.1, "likelihood": "calibrated"},
            "sigma=0.1: is for likelihood='gaussian'; calibrated has no fixed one; leave it out",
        ),
        (
            {"sigma": 0.1, "likelihood": "bernoulli"},
            "sigma=0.1: is for likelihood='gaussian'; bernoulli has no fixed one; leave it out",
        ),
        (
            {"free_bits": 0.1, "kl_tolerance": 0.5},
            "free_bits=0.1: holds up the same KL as kl_tolerance; choose one",
        ),
        (
            {"beta": 0.0, "kl_tolerance": 0.5},
            "beta=0: leaves the KL out, so free_bits and kl_tolerance have nothing to hold up",
        ),
        (
            {"beta_cycles": 4, "beta_warmup_steps": 0},
            "beta_cycles=4: needs beta_warmup_steps, the steps of each rise",
        ),
        (
            {"beta_cycles": 4, "beta_warmup_steps": 100, "steps": 699},
            "beta_cycles=4: 100 rising and as many resting steps of each need 700 steps, steps is 699; "
            "ask for more, or lower beta_warmup_steps",
        ),
        ({"condition": ("step", "action", "step")}, "condition=('step', 'action', 'step'): names 'step' twice"),
        (
            {"address": "auto"},
            "address='auto': one worker trains here, on no cluster; ask for more num_workers, or leave it out",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        config(**{"likelihood": "gaussian", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "gaussian", "sigma": 0.1, "free_bits": 0.1, "beta": 0.5},
        {"kl_tolerance": 0.5, "beta_cycles": 4, "beta_warmup_steps": 100, "steps": 700},
        {"beta": 0.0},
    ],
)
def test_what_makes_sense_together_is_taken(changes: dict[str, object]) -> None:
    assert config(**changes).identity().items() >= changes.items() - {("steps", 700)}


TOKENIZER = "tests.extending.my_tokenizer:Tokenizer"


@dataclass(frozen=True, kw_only=True)
class MoreSettings(VAESettings):
    rate: float = 0.5
    levels: Annotated[int, Interval(ge=2, le=40)] = 4
    sizes: tuple[int, ...] = ()

    def require_combination(self, steps: int) -> None:
        super().require_combination(steps)
        if self.rate > steps:
            raise ConfigError("is above the steps", field="rate", got=self.rate)


class More(VAE):
    """The VAE with a setting more."""

    settings_class = MoreSettings


def test_another_autoencoder_has_its_own_settings_beside_those_of_the_loop() -> None:
    own = train_config(TOKENIZER)(data="data", out="out", levels=3, steps=7)
    assert isinstance(own, LoopConfig)
    assert (own.autoencoder, own.levels, own.steps, own.data) == (TOKENIZER, 3, 7, (Path("data"),))
    assert own.identity()["levels"] == 3
    assert "latent_dim" not in own.identity()
    with pytest.raises(ConfigError, match=r"^levels: expected 2 to 40, got 41$"):
        train_config(f"{__name__}:More")(data="data", out="out", levels=41)
    with pytest.raises(
        ConfigError, match=rf"^autoencoder='{TOKENIZER}': has other settings than these; make them with train_con"
    ):
        config(autoencoder=TOKENIZER)
    assert train_config("gaussian") is TrainConfig


def test_a_vae_of_ones_own_has_the_vaes_settings_and_more() -> None:
    made = train_config(f"{__name__}:More")
    assert More.config_class(rate=2.0, latent_dim=3).frame_shape == (64, 64)
    for settings, text in [
        ({"rate": 8.0, "steps": 7}, "rate=8.0: is above the steps"),
        ({"beta_cycles": 0}, "beta_cycles: expe"),
    ]:
        with pytest.raises(ConfigError, match=f"^{text}"):
            made(data="data", out="out", **settings)


@pytest.mark.parametrize(
    ("name", "default", "text"),
    [
        *((name, 1, "has the name of another one of wm-train; rename it") for name in ("steps", "frame_height")),
        ("depth", MISSING, "has no default; give it one"),
    ],
)
def test_settings_that_cannot_be_options_are_refused(
    name: str, default: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = make_dataclass("Odd", [(name, int, field(default=default))], bases=(AutoencoderSettings,), frozen=True, kw_only=True)
    monkeypatch.setattr(More, "settings_class", odd)
    with pytest.raises(ConfigError, match=f"^autoencoder='{__name__}:More': its setting {name} {text}$"):
        train_config(f"{__name__}:More")


def test_an_autoencoder_may_have_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(More, "settings_class", AutoencoderSettings)
    plain = train_config(f"{__name__}:More")(data="data", out="out")
    assert {each.name for each in fields(plain)} == {each.name for each in fields(LoopConfig)}


def test_the_identity_is_what_json_keeps_of_it() -> None:
    identity = config(condition=("step", "action")).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["condition"] == ["step", "action"]
    assert train_config(f"{__name__}:More")(data="data", out="out", sizes=(1, 2)).identity()["sizes"] == [1, 2]


@pytest.mark.parametrize(
    "setting",
    [
        {"autoencoder": "own_model:Own"},
        {"optimizer": "own_model:own"},
        {"perceptual": 1.0, "perceptual_network": "own_model:own"},
    ],
)
def test_a_file_that_ones_own_code_imports_is_of_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any]
) -> None:
    """A training is not continued with an edited helper module, nor are latents."""
    lines = ["from worldmodel_v.autoencoders import Autoencoder", "import own_layers", "class Own(Autoencoder): ..."]
    (tmp_path / "own_model.py").write_text("\n".join([*lines, "def own(*_, **__): ..."]))
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for content in ("WIDTH = 8", "WIDTH = 16 "):
        (tmp_path / "own_layers.py").write_text(content)
        for name in ("own_model", "own_layers"):
            sys.modules.pop(name, None)
        kind = setting.get("autoencoder", "gaussian")
        identity = train_config(kind)(data=tmp_path, out=tmp_path / "out", **setting).identity()
        found.append([value for name, value in identity.items() if name.endswith("_sha256")])
    assert [len(each) for each in found] == [1, 1]
    assert found[0] != found[1]
