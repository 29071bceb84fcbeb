"""An autoencoder of a user's own is refused unless its file gives what it gives itself: before the training, and at its end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldmodel_v.autoencoders import Autoencoder, Batch, Latents, Loss
from worldmodel_v.errors import ModelFailed
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.schema import Column
from worldmodel_v.training import train, train_config


class Plain(Autoencoder):
    """Keeps all in parameters, two of them twice."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.encoder[2].weight = self.encoder[1].weight
        self.decoder = nn.ConvTranspose2d(4, 3, 8, stride=8)

    def latents(self, dtype: str) -> Any:
        height, width = self.config.frame_height // 8, self.config.frame_width // 8
        return (Column(name="code", dtype=dtype, row_shape=(4, height, width), role="latent"),), ()

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x)}

    def decode(self, latents: Latents, condition: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.decoder(latents["code"]))

    def loss(self, batch: Batch) -> Loss:
        return Loss((self.decode(self.encode(batch.x)) - batch.x).square().mean(), {})


class Listed(Plain):
    """Has a layer in a plain list."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.more = [nn.Conv2d(4, 4, 1)]

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.more[0](self.encoder(x))}


class ListedDecoder(Listed):
    """Has one that only the decoder uses."""

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x)}

    def decode(self, latents: Latents, condition: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.decoder(self.more[0](latents["code"])))


class Large(Plain):
    """Has whole numbers that float32 rounds."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("numbers", torch.tensor([2**24, 2**24 + 1]))

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x) + self.numbers.diff()}


class Drawing(Plain):
    """Draws what it stores."""

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x) + torch.randn(())}


class Following(Plain):
    """Follows its features by a number that is no buffer, and begins as its file says."""

    mean = 0.0

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x) - self.mean}

    def loss(self, batch: Batch) -> Loss:
        self.mean = 0.5 * self.mean + 1.0
        return super().loss(batch)


class Unknown(Following):
    """Its number is NaN until it is trained."""

    mean = float("nan")

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x) - (0.0 if self.training else self.mean)}

    def loss(self, batch: Batch) -> Loss:
        self.mean = 1.0
        return Plain.loss(self, batch)


class Centred(Plain):
    """Subtracts the mean of a batch."""

    def encode(self, x: Tensor, condition: Tensor | None = None) -> Latents:
        return {"code": self.encoder(x - x.mean(dim=0))}


class CentredDecoder(Plain):
    """Normalises by the batch where it decodes, as it keeps no statistics."""

    def decode(self, latents: Latents, condition: Tensor | None = None) -> Tensor:
        normalise = nn.BatchNorm2d(3, affine=False, track_running_stats=False)
        return torch.sigmoid(normalise(self.decoder(latents["code"])))


def config_of(own: type[Autoencoder], data: Path, out: Path, **settings: Any) -> Any:
    kind = f"{__name__}:{own.__name__}"
    return train_config(kind)(data=data, out=out, steps=2, batch_size=8, holdout_every=4, device="cpu", **settings)


@pytest.mark.parametrize("own", [Listed, ListedDecoder, Large, Drawing, Following, Unknown])
def test_what_its_file_does_not_keep_is_refused(own: type[Autoencoder], stamp_rollouts: Path, tmp_path: Path) -> None:
    what = "frames" if own is ListedDecoder else "code"
    with pytest.raises(ModelFailed, match=rf"gives other {what} once it is saved and loaded; keep all that it needs in param"):
        train(config_of(own, stamp_rollouts, tmp_path / "vae"))
    assert (tmp_path / "vae").exists() == (own is Following)
    assert not (tmp_path / "vae" / "vae.safetensors").exists()


@pytest.mark.parametrize(("own", "what"), [(Centred, "code"), (CentredDecoder, "frames")])
def test_what_depends_on_the_rest_of_a_batch_is_refused(
    own: type[Autoencoder], what: str, stamp_rollouts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFailed, match=rf"gives other {what} for a frame if the other frames of its batch change; let"):
        train(config_of(own, stamp_rollouts, tmp_path / "vae"))
    assert not (tmp_path / "vae").exists()


def test_layers_may_share_their_weights(stamp_rollouts: Path, tmp_path: Path) -> None:
    report = train(config_of(Plain, stamp_rollouts, tmp_path / "vae"))
    config = EvalConfig(
        vae=tmp_path / "vae", data=stamp_rollouts, out=tmp_path / "eval", autoencoder=f"{__name__}:Plain", device="cpu"
    )
    assert evaluate(config).summary.psnr_db == pytest.approx(report.heldout["psnr_db"])


def test_a_network_that_does_not_take_the_frames_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"fails on frames of the shape \(2, 1, .*: RuntimeError: Given groups=1"):
        train(config_of(Plain, stamp_rollouts, tmp_path / "vae", channels=1))
    assert not (tmp_path / "vae").exists()
