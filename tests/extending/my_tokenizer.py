"""A user's tokenizer: each 8x8 patch becomes one whole number (finite scalar quantisation, Mentzer et al. 2023)."""

from dataclasses import dataclass

from torch import nn, stack

from worldmodel_v.autoencoders import Autoencoder, AutoencoderSettings, Loss
from worldmodel_v.schema import Column


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings(AutoencoderSettings):
    levels: int = 4
    """Values of each of the three digits of a token."""


class Tokenizer(Autoencoder):
    settings_class = TokenizerSettings

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.ReLU(), nn.Conv2d(32, 3, 1), nn.Sigmoid())
        self.decoder = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 8, stride=8), nn.Sigmoid())

    def latents(self, dtype):
        shape, count = (self.config.frame_height // 8, self.config.frame_width // 8), self.config.levels**3
        return (Column(name="tokens", dtype="uint16", row_shape=shape, role="latent", num_values=count),), ()

    def encode(self, x, condition=None):
        digits = (self.encoder(x) * (self.config.levels - 1)).round().long()
        return {"tokens": sum(digits[:, i] * self.config.levels**i for i in range(3))}

    def decode(self, latents, condition=None):
        digits = [latents["tokens"] // self.config.levels**i % self.config.levels for i in range(3)]
        return self.decoder(stack(digits, dim=1) / (self.config.levels - 1))

    def loss(self, batch):
        features, largest = self.encoder(batch.x), self.config.levels - 1
        coded = features + ((features * largest).round() / largest - features).detach()
        return Loss((self.decoder(coded) - batch.x).pow(2).mean(), {"used_codes": len(self.encode(batch.x)["tokens"].unique())})
