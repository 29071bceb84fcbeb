"""Finite scalar quantisation against hand calculations, and its refusals."""

import math

import pytest
import torch

from worldmodel_v.autoencoders.tokens.fsq import EPS, FSQ, FSQConfig, basis_of, bounded, quantised, to_codes, to_tokens
from worldmodel_v.errors import ConfigError
from worldmodel_v.training import train_config

LEVELS = torch.tensor([8, 5])
BASIS = basis_of(LEVELS)


@pytest.mark.parametrize(
    ("z", "code", "token"),
    [
        ((0.0, 0.0), (0.0, 0.0), 4 + 8 * 2),  # the middle: digit 4 of 8, digit 2 of 5
        ((10.0, -10.0), (3 / 4, -1.0), 7),  # the highest of 8 is 3 of 4, the lowest of 5 is -2 of 2
        ((-10.0, 10.0), (-1.0, 1.0), 8 * 4),
        ((math.atanh(1.6 / (3.5 * (1 - EPS))) - math.tan(0.5 / (3.5 * (1 - EPS))), 0.6), (1 / 4, 1 / 2), 5 + 8 * 3),
    ],
)
def test_codes_and_tokens_are_those_of_a_hand_calculation(z: tuple[float, ...], code: tuple[float, ...], token: int) -> None:
    """The last: tanh(z + shift) l - 1/2 is 1.1, rounded 1; tanh(0.6) 1.998 is 1.07, rounded 1."""
    found = quantised(torch.tensor(z), LEVELS)
    assert found.tolist() == pytest.approx(code)
    assert int(to_tokens(found, LEVELS, BASIS)) == token
    assert to_codes(torch.tensor(token), LEVELS, BASIS).tolist() == pytest.approx(code)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2,), (2, 3), (7, 4, 9)])
def test_every_token_is_that_of_its_code(levels: tuple[int, ...]) -> None:
    levels_D = torch.tensor(levels)
    tokens = torch.arange(math.prod(levels))
    codes = to_codes(tokens, levels_D, basis_of(levels_D))
    assert codes.shape == (len(tokens), len(levels))
    assert len(codes.unique(dim=0)) == len(tokens)
    assert codes.abs().max() == 1
    assert torch.equal(to_tokens(codes, levels_D, basis_of(levels_D)), tokens)


def test_all_levels_are_reached_and_no_others() -> None:
    levels_D = torch.tensor([2, 3, 4, 5, 8, 9])
    z = torch.linspace(-20, 20, 4001)[:, None].expand(-1, len(levels_D))
    digits = bounded(z, levels_D).round() + levels_D // 2
    assert [sorted(column.unique().tolist()) for column in digits.T] == [list(range(count)) for count in levels_D.tolist()]


def test_the_gradient_is_that_of_what_was_not_rounded() -> None:
    z = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quantised(z, LEVELS).sum().backward()
    half = (LEVELS - 1) * (1 - EPS) / 2
    shift = torch.tensor([math.tan(0.5 / half[0]), 0.0])
    expected = (1 - torch.tanh(z.detach() + shift) ** 2) * half / (LEVELS // 2)
    torch.testing.assert_close(z.grad, expected, rtol=1e-6, atol=1e-9)


def test_it_stores_as_many_values_as_its_levels_make() -> None:
    for levels, dtype in (((4, 4, 4), "uint8"), ((8, 8, 4), "uint8"), ((8, 5, 5, 5), "uint16"), ((16,) * 4, "uint16")):
        model = FSQ(FSQConfig(levels=levels, frame_height=16, frame_width=24, token_grid=4))
        ((column,), draws) = model.latents("float32")
        assert (column.name, column.dtype, column.num_values, draws) == ("tokens", dtype, math.prod(levels), ())
        assert column.row_shape == (4, 6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"levels": ()}, r"^levels: expected whole numbers of at least 2, got \(\)$"),
        ({"levels": (5, 1)}, r"^levels: expected whole numbers of at least 2, got \(5, 1\)$"),
        ({"levels": (256, 257)}, r"^levels=\(256, 257\): are 65792 codes together; expected at most 65536$"),
        ({"token_grid": 0}, r"^token_grid: expected 1 to 64, got 0$"),
    ],
)
def test_settings_that_make_no_codebook_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        train_config("fsq")(data="rollouts", out="fsq", **settings)
    with pytest.raises(ConfigError, match=text):
        FSQConfig(**settings)  # type: ignore[arg-type]
