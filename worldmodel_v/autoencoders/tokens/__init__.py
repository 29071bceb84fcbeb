"""Autoencoders that store tokens: whole numbers below a number of values, a few for each frame.

`fsq`, `vq` and `categorical` differ in how features become tokens; `tokenizer` has what they share, `grid` the network of those
whose tokens are a small map, `use` the figures of how codes are used.
"""

from worldmodel_v.autoencoders.tokens.tokenizer import Tokenizer, TokenSettings
from worldmodel_v.autoencoders.tokens.use import CodeUse, code_use

__all__ = ["CodeUse", "TokenSettings", "Tokenizer", "code_use"]
