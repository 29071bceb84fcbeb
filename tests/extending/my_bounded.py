"""The user's tokenizer, with bounds for its setting."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from my_tokenizer import Tokenizer, TokenizerSettings


@dataclass(frozen=True, kw_only=True)
class BoundedSettings(TokenizerSettings):
    levels: Annotated[int, Interval(ge=2, le=40)] = 4
    """Values of each of the three digits of a token."""


class Bounded(Tokenizer):
    settings_class = BoundedSettings
