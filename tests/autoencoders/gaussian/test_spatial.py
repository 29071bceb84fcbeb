"""A map of latents: its order, its loss against one place after the other, and its refusals."""

import pytest
import torch

from tests.autoencoders.kinds import frames
from worldmodel_v.autoencoders import Batch
from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.autoencoders.gaussian.spatial import SpatialConfig, SpatialVAE
from worldmodel_v.errors import ConfigError
from worldmodel_v.training import train_config


def made(**changes: object) -> SpatialVAE:
    torch.manual_seed(0)
    settings = {"frame_height": 16, "frame_width": 24, "latent_grid": 4, "latent_channels": 3, "beta_warmup_steps": 0}
    return SpatialVAE(SpatialConfig(**{**settings, **changes}))  # type: ignore[arg-type]


def scores_of(mu: torch.Tensor, logvar: torch.Tensor) -> Scores:
    return Scores(latents={"mu": mu, "logvar": logvar}, measures={}, num_values=1)


def test_each_place_has_the_latents_of_the_1x1_convolution_there() -> None:
    model, x = made().eval(), frames(2, 16, 24)
    with torch.no_grad():
        found, features = model.encode(x), model.encoder(x)
        weight, bias = model.to_posterior.weight[:, :, 0, 0], model.to_posterior.bias
        for row, column in ((0, 0), (3, 5), (2, 1)):
            expected = features[:, :, row, column] @ weight.T + bias
            torch.testing.assert_close(found["mu"][:, row, column], expected[:, :3])
            torch.testing.assert_close(found["logvar"][:, row, column], expected[:, 3:])
    assert found["mu"].shape == (2, 4, 6, 3)


def test_the_loss_is_the_error_and_the_kl_of_independent_normals() -> None:
    model, x = made(likelihood="gaussian").eval(), frames(3, 16, 24)
    noise = torch.randn(3, 72, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss, found = model.loss(Batch(x, None, noise, 0, lambda mean: mean)), model.encode(x)
        std = (0.5 * found["logvar"]).exp()
        posterior = torch.distributions.Normal(found["mu"], std)
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
        drawn = model.decode({"mu": found["mu"] + std * noise.view(3, 4, 6, 3)})
        error = (drawn - x).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(loss.figures["kl"], kl)
    torch.testing.assert_close(loss.minimised, error + kl)


def test_a_latent_changes_most_the_part_of_the_frame_around_its_place() -> None:
    model = made(frame_height=64, frame_width=64, latent_grid=16).eval()
    z = torch.zeros(2, 16, 16, 3)
    z[1, 2, 3] = 50.0
    with torch.no_grad():
        before, after = model.decode({"mu": z})
    change = torch.nn.functional.avg_pool2d((after - before).abs().sum(dim=0)[None], kernel_size=4)[0]
    assert divmod(int(change.argmax()), 16) == (2, 3)


def test_channels_that_say_nothing_are_counted_and_told() -> None:
    model = made()
    mu, logvar = torch.randn(50, 4, 6, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(50, 4, 6, 3)
    mu[..., 1] = 0.0
    figures, health = model.figures(scores_of(mu, logvar)), model.health(scores_of(mu, logvar))
    assert (figures["dead_channels"], figures["num_channels"], figures["active_units"], figures["latent_dim"]) == (1, 3, 48, 72)
    expected = [0.5 * mu[..., channel].double().square().sum(dim=(1, 2)).mean().item() for channel in range(3)]
    assert health["kl_per_channel"] == pytest.approx(expected, rel=1e-5)
    (finding,) = model.findings(900, figures, health)
    assert finding.text == (
        "step 900: 1 of 3 channels of the latent are active at no place; fewer latent_channels would do as well, or a lower "
        "beta would use them"
    )
    assert not finding.is_collapse
    silent = scores_of(torch.zeros_like(mu), logvar)
    (collapse,) = model.findings(900, model.figures(silent), model.health(silent))
    assert collapse.is_collapse


def test_a_condition_reaches_encoder_and_decoder() -> None:
    model = made(condition=("speed",), condition_dim=1).eval()
    model.standardise_by(torch.tensor([3.0]), torch.tensor([2.0]))
    x, conditions = frames(4, 16, 24), [torch.full((4, 1), value) for value in (-50.0, 50.0)]
    with torch.no_grad():
        mu = [model.encode(x, condition)["mu"] for condition in conditions]
        drawn = [model.decode({"mu": mu[0]}, condition) for condition in conditions]
    assert not torch.allclose(*mu)
    assert not torch.allclose(*drawn)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"latent_grid": 9}, r"^latent_grid=9: frames of 16x24 have at most 8 latents along a side; ask for fewer"),
        ({"latent_grid": 8, "latent_channels": 50}, r"^latent_channels=50: at 8x12 places, a frame has 4800 latents"),
        ({"frame_height": 20}, r"^the VAE needs frames whose height and width are multiples of 8, got 20x24$"),
    ],
)
def test_maps_that_frames_do_not_have_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        made(**settings)


def test_settings_of_other_networks_are_none_of_its_own() -> None:
    for name, value in {"architecture": "mlp", "latent_dim": 8}.items():
        with pytest.raises(TypeError, match=name):
            train_config("spatial")(data="rollouts", out="vae", **{name: value})
