"""The codebook against the paper's equations in NumPy, revival, and the terms of the loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.autoencoders.kinds import batch_of, frames, made
from worldmodel_v.autoencoders.tokens import codebook
from worldmodel_v.autoencoders.tokens.codebook import DEAD_SHARE, EPS, REVIVAL_STEPS, Codebook
from worldmodel_v.autoencoders.tokens.vq import VQ
from worldmodel_v.training import train, train_config

K, D = 6, 3


def vectors(step: int, count: int = 40) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(100 + step))


def book_in_use(seed: int = 0) -> Codebook:
    """A codebook all of whose codes have been used."""
    torch.manual_seed(seed)
    book = Codebook(K, D, decay=0.9)
    book.usage.copy_(torch.rand(K) + 0.5)
    book.usage /= book.usage.sum()
    book.sums.copy_(book.codes * book.usage[:, None])
    return book


def alone(mean: torch.Tensor) -> torch.Tensor:
    return mean


def test_the_nearest_code_is_that_of_all_distances() -> None:
    book, z = book_in_use(), vectors(0)
    expected = torch.cdist(z.double(), book.codes.double()).argmin(dim=1)
    assert torch.equal(book.nearest(z), expected)
    assert torch.equal(book.nearest(z.reshape(2, 4, 5, D)), expected.reshape(2, 4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book.nearest(z), expected)


def test_the_codes_follow_the_papers_equations() -> None:
    """Counts and sums as in the paper, where ε is that of a count."""
    book = book_in_use()
    num = 40
    counts, sums = (values.double().numpy() * num for values in (book.usage, book.sums))
    codes = book.codes.double().numpy()
    for step in range(1, 6):
        z = vectors(step)
        distances = ((z.double().numpy()[:, None] - codes) ** 2).sum(axis=2)
        tokens = distances.argmin(axis=1)
        chosen = np.eye(K)[tokens]
        counts = 0.9 * counts + 0.1 * chosen.sum(axis=0)
        sums = 0.9 * sums + 0.1 * chosen.T @ z.double().numpy()
        smoothed = (counts + num * EPS) / (counts.sum() + K * num * EPS) * counts.sum()
        codes = sums / smoothed[:, None]
        book.update(z, torch.from_numpy(tokens), alone, step)
        np.testing.assert_allclose(book.codes, codes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(book.usage, counts / num, rtol=1e-5)


def test_parts_of_a_batch_take_the_step_of_the_whole() -> None:
    z, whole = vectors(0), book_in_use()
    tokens = whole.nearest(z)
    parts, rows = [book_in_use(), book_in_use()], [slice(20), slice(20, 40)]
    means: list[torch.Tensor] = []
    for book, part in zip(parts, rows, strict=True):
        book.update(z[part], tokens[part], lambda mean: means.append(mean) or mean, 0)
    whole.update(z, tokens, alone, 0)
    for book, part in zip(parts, rows, strict=True):
        book.load_state_dict(book_in_use().state_dict())
        book.update(z[part], tokens[part], lambda _: (means[0] + means[1]) / 2, 0)
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(book.state_dict()[name], value)


def test_dead_codes_are_moved_to_where_the_vectors_are_and_used_ones_stay() -> None:
    book = book_in_use()
    book.codes[:2] += 1000  # nothing is near them
    book.sums.copy_(book.codes * book.usage[:, None])
    book.usage[:2] = DEAD_SHARE / K / 2
    z = vectors(0)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book.update(z, book.nearest(z), alone, step=REVIVAL_STEPS + 1)
    assert (book.codes[:2].abs() > 100).all()
    book.load_state_dict(before)
    book.update(z, book.nearest(z), alone, step=REVIVAL_STEPS)
    assert (book.codes[:2].abs() < 6).all()
    assert book.usage[:2].tolist() == pytest.approx([2 * DEAD_SHARE / K] * 2)
    np.testing.assert_allclose(book.sums, book.codes * book.usage[:, None], rtol=1e-4)
    again = book_in_use()
    again.load_state_dict(before)
    again.update(z, again.nearest(z), alone, step=REVIVAL_STEPS)
    assert torch.equal(again.codes, book.codes)
    plain = book_in_use()
    plain.load_state_dict(before)
    plain.update(z, plain.nearest(z), alone, step=REVIVAL_STEPS + 1)
    torch.testing.assert_close(book.codes[2:], plain.codes[2:])


def test_the_first_step_starts_the_codebook_from_the_data() -> None:
    torch.manual_seed(0)
    book, z = Codebook(64, D, decay=0.99), 5 + 0.1 * vectors(0, 200)
    assert len(book.nearest(z).unique()) < 5
    book.update(z, book.nearest(z), alone, step=0)
    assert (book.codes - 5).abs().max() < 0.6
    assert len(book.nearest(z).unique()) > 30


def test_the_loss_is_the_error_and_the_weighted_commitment() -> None:
    model, x = made("vq", commitment=0.5), frames()
    assert isinstance(model, VQ)
    z = model.features(x)
    codes = model.codebook.codes[torch.cdist(z.flatten(end_dim=-2), model.codebook.codes).argmin(dim=1)].view(z.shape)
    error = (model.decode(model.encode(x)) - x).square().sum() / len(x)
    commitment = (z - codes).square().sum() / len(x)
    found = model.eval().loss(batch_of(model, x))
    torch.testing.assert_close(found.figures["reconstruction"], error)
    torch.testing.assert_close(found.figures["commitment"], commitment)
    torch.testing.assert_close(found.minimised, error + 0.5 * commitment)


def test_gradients_pass_straight_through_to_the_encoder_and_not_to_the_codes() -> None:
    """Without the commitment, the features get the gradient that the codes would have got."""
    model, x = made("vq", commitment=0.0).eval(), frames()
    assert isinstance(model, VQ)
    z = model.features(x)
    z.retain_grad()
    codes = model.codes_of(model.tokens_of(z)).requires_grad_()
    expected = torch.autograd.grad((torch.sigmoid(model.decode_logits(codes)) - x).square().sum(), codes)[0]
    model.features = lambda *_: z  # type: ignore[method-assign]
    model.terms(x, None, None).minimised.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, expected)
    assert not model.codebook.codes.requires_grad


def test_a_training_that_is_continued_across_a_revival_is_the_one_that_was_not(
    tiny_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebook, "REVIVAL_STEPS", 3)
    settings: dict[str, Any] = {"batch_size": 16, "checkpoint_every": 4, "holdout_every": 4, "device": "cpu"}
    settings |= {"codebook_size": 512, "token_grid": 2, "code_dim": 4}
    for out, steps in (("resumed", 4), ("resumed", 10), ("straight", 10)):
        train(train_config("vq")(data=tiny_rollouts, out=tmp_path / out, steps=steps, **settings))
    resumed, straight = ((tmp_path / name / "vae.safetensors").read_bytes() for name in ("resumed", "straight"))
    assert resumed == straight
