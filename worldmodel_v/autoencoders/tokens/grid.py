"""The network of autoencoders whose tokens are a small map: each token describes the part of the frame around its place.

Legend: B batch, C channels, H, W frame, h, w tokens, D values of a code, K values of the condition.

It is the VAE's residual network without its linear layers, and ends where the map has the wanted size: every further halving
would divide the number of tokens by four. 1x1 convolutions lead to the D values of a code and back. A condition is appended to
the features and to the codes at every place.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from worldmodel_v.autoencoders.base import AutoencoderConfig, Latents
from worldmodel_v.autoencoders.blocks import beside_everywhere, halvings, require_grid, residual_network
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS, Tokenizer, TokenSettings, require_frame_shape


@dataclass(frozen=True, kw_only=True)
class GridSettings(TokenSettings):
    """What those with a map of tokens are told."""

    token_grid: Annotated[int, Interval(ge=1, le=64)] = 8
    """Tokens along a side: a side is halved while at least as many remain, so 64x64 gives 8x8, and 96x64 gives 12x8."""


@dataclass(frozen=True, kw_only=True)
class GridConfig(GridSettings, AutoencoderConfig):
    """What determines the network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_frame_shape(self)
        require_grid(self.frame_shape, self.token_grid, field="token_grid", what="tokens")


class GridTokenizer(Tokenizer):
    """Encoder and decoder. Subclasses have `tokens_of`, `codes_of` and `terms`."""

    def __init__(self, config: GridConfig, code_dim: int, num_values: int) -> None:
        stages = halvings(config.frame_shape, config.token_grid)
        super().__init__(config, stages[-1].after, num_values)
        network = residual_network(stages, config.channels)
        width, beside = network.bottom[0], config.condition_dim
        self.encoder, self.decoder = network.encoder, network.decoder
        self.to_code = nn.Conv2d(width + beside, code_dim, kernel_size=1)
        self.from_code = nn.Conv2d(code_dim + beside, width, kernel_size=1)

    @abstractmethod
    def tokens_of(self, features_BhwD: Tensor) -> Tensor:
        """int64 (B, h, w)"""

    def features(self, x_BCHW: Tensor, condition_BK: Tensor | None = None) -> Tensor:
        """What is to be quantised: float32 (B, h, w, D), for any autocast."""
        return self.to_code(self._beside(self.encoder(x_BCHW), condition_BK)).float().permute(0, 2, 3, 1)

    def decode_logits(self, codes_BhwD: Tensor, condition_BK: Tensor | None = None) -> Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""
        codes_BDhw = codes_BhwD.permute(0, 3, 1, 2)
        return self.decoder(self.from_code(self._beside(codes_BDhw, condition_BK))).float()

    def encode(self, x_BCHW: Tensor, condition_BK: Tensor | None = None) -> Latents:
        """tokens: int64 (B, h, w)."""
        return {TOKENS: self.tokens_of(self.features(x_BCHW, condition_BK))}

    def _beside(self, maps_BChw: Tensor, condition_BK: Tensor | None) -> Tensor:
        """The maps with the standardised condition appended at every place."""
        return beside_everywhere(maps_BChw, self.standardised(condition_BK))
