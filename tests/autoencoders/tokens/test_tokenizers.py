"""What every autoencoder with tokens keeps to: shapes, learning, figures and warnings; by name."""

from pathlib import Path

import pytest
import torch

from tests.autoencoders.kinds import TOKENIZERS, batch_of, frames, made, psnr_of_learned_by_heart
from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.errors import ConfigError
from worldmodel_v.training import train_config
from worldmodel_v.training.health import GRACE_STEPS, Watch


def scores_of(tokens: torch.Tensor) -> Scores:
    return Scores(latents={"tokens": tokens}, measures={}, num_values=1)


@pytest.mark.parametrize(("kind", "likelihood"), [*((kind, "gaussian") for kind in TOKENIZERS), ("fsq", "bernoulli")])
def test_it_learns_a_handful_of_frames_by_heart(kind: str, likelihood: str) -> None:
    assert psnr_of_learned_by_heart(kind, steps=150, likelihood=likelihood) > 25


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (72, 24), (64, 64), (1024, 16)])
def test_tokens_and_frames_of_every_size(kind: str, shape: tuple[int, int]) -> None:
    model = made(kind, frame_height=shape[0], frame_width=shape[1]).eval()
    x = torch.rand(2, 3, *shape)
    with torch.no_grad():
        tokens = model.encode(x)["tokens"]
        assert model.decode({"tokens": tokens.to(torch.uint8)}).shape == x.shape
    assert tokens.shape == (2, *model.token_shape)
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < model.num_values


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_frames_tokens_do_not_depend_on_the_other_frames(kind: str) -> None:
    model, x = made(kind).eval(), frames(8)
    with torch.no_grad():
        together = model.encode(x)["tokens"]
        alone = torch.cat([model.encode(frame[None])["tokens"] for frame in x])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_condition_reaches_encoder_and_decoder(kind: str) -> None:
    model = made(kind, condition=("speed",), condition_dim=1).eval()
    model.standardise_by(torch.tensor([3.0]), torch.tensor([2.0]))
    x, conditions = frames(), [torch.full((6, 1), value) for value in (-500.0, 500.0)]
    with torch.no_grad():
        tokens = [model.encode(x, condition)["tokens"] for condition in conditions]
        drawn = [model.decode({"tokens": tokens[0]}, condition) for condition in conditions]
    assert not torch.equal(*tokens)
    assert not torch.allclose(*drawn)
    assert model.loss(batch_of(model, x, condition=conditions[0])).minimised.isfinite()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_perplexity_of_a_step_is_that_of_the_whole_batch(kind: str) -> None:
    model, x = made(kind).eval(), frames(4)
    batch = batch_of(model, x)
    whole = model.loss(batch).figures["perplexity"]
    parts = [
        batch._replace(x=x[rows], noise=None if batch.noise is None else batch.noise[rows]) for rows in (slice(2), slice(2, 4))
    ]
    shares = []
    for part in parts:
        model.loss(part._replace(across=lambda mean: shares.append(mean) or mean))
    found = [model.loss(part._replace(across=lambda _: (shares[0] + shares[1]) / 2)).figures["perplexity"] for part in parts]
    torch.testing.assert_close(torch.stack(found), torch.stack([whole, whole]))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_collapsed_codebook_is_told_with_what_to_do(kind: str) -> None:
    model = made(kind)
    generator = torch.Generator().manual_seed(0)
    same = torch.randint(0, model.num_values, (1, *model.token_shape), generator=generator).expand(200, *model.token_shape)
    few = torch.randint(0, 2, (200, *model.token_shape), generator=generator)
    many = torch.randint(0, model.num_values, (200, *model.token_shape), generator=generator)
    findings = []
    for tokens in (same, few, many):
        figures = {"num_frames": 200, "psnr_db": 20.0, **model.figures(scores_of(tokens))}
        findings.append(model.findings(900, figures, model.health(scores_of(tokens))))
    (collapse,), _, none = findings
    assert none == []
    assert (collapse.name, collapse.is_collapse) == ("collapse", True)
    assert collapse.text.startswith("step 900: all frames have nearly the same tokens (0.00 bits a frame of ")
    assert collapse.text.endswith(model.remedy)


def test_few_codes_are_told_without_calling_it_a_collapse() -> None:
    model = made("fsq")
    tokens = torch.randint(0, 2, (200, 4, 4), generator=torch.Generator().manual_seed(0))
    figures = {"num_frames": 200, **model.figures(scores_of(tokens))}
    ((name, text, is_collapse),) = model.findings(900, figures, {})
    assert (name, is_collapse) == ("codes", False)
    assert text == (
        "step 900: few codes are used, as many as 2.0 of 100 would be if they were equally frequent, and 98 of 100 are dead; "
        "fewer or smaller levels may do as well, otherwise lower learning_rate, or train longer"
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_frames_that_do_not_fit_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^tokens need frames whose height and width are multiples of 8, up to 1024; these"):
        made(kind, frame_height=20)
    with pytest.raises(ConfigError, match="these are 1032x16"):
        made(kind, frame_height=1032)


def test_a_grid_that_is_finer_than_the_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^token_grid=9: frames of 16x64 have at most 8 tokens along a side; ask for fewer"):
        made("fsq", token_grid=9, frame_width=64)


def test_a_training_warns_of_a_collapsed_codebook_once(tmp_path: Path) -> None:
    model, said = made("vq"), list[str]()
    watch = Watch(train_config("vq")(data=tmp_path, out=tmp_path), model, said.append)
    same = scores_of(torch.zeros(50, *model.token_shape, dtype=torch.int64))
    figures = {"num_frames": 50, "psnr_db": 20.0, **model.figures(same)}
    assert watch.judge(GRACE_STEPS - 1, figures, model.health(same)) is None
    assert [watch.judge(step, figures, model.health(same)) is None for step in (500, 1000)] == [False, False]
    assert said == [
        "warning: step 500: all frames have nearly the same tokens (0.00 bits a frame of 106): the codebook has collapsed; "
        "lower learning_rate or commitment, or raise batch_size"
    ]
