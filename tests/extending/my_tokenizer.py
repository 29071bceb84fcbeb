"""A user's tokenizer: each 8x8 patch of a frame becomes one of 64 codes (VQ-VAE, van den Oord et al. 2017)."""

from dataclasses import dataclass

from torch import nn, randn
from torch.nn.functional import mse_loss

from worldmodel_v.autoencoders import Autoencoder, AutoencoderConfig, Loss
from worldmodel_v.schema import Column


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(AutoencoderConfig):
    num_codes: int = 64


class Tokenizer(Autoencoder):
    config_class = TokenizerConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.ReLU(), nn.Conv2d(32, 8, 1))
        self.codes = nn.Parameter(randn(config.num_codes, 8))
        self.decoder = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(8, 3, 8, stride=8), nn.Sigmoid())

    def latents(self, dtype):
        shape, count = (self.config.frame_height // 8, self.config.frame_width // 8), self.config.num_codes
        return (Column(name="tokens", dtype="uint16", row_shape=shape, role="latent", num_values=count),), ()

    def encode(self, x, condition=None):
        return {"tokens": (self.encoder(x).movedim(1, -1)[..., None, :] - self.codes).square().sum(-1).argmin(-1)}

    def decode(self, latents, condition=None):
        return self.decoder(self.codes[latents["tokens"]].movedim(-1, 1))

    def loss(self, batch):
        features, chosen = self.encoder(batch.x), self.codes[self.encode(batch.x)["tokens"]].movedim(-1, 1)
        error = mse_loss(self.decoder(features + (chosen - features).detach()), batch.x)
        codebook = mse_loss(features, chosen.detach()) + mse_loss(chosen, features.detach())
        return Loss(error + codebook, {"error": error, "codebook": codebook})
