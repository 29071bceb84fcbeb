"""What every autoencoder keeps to, whatever its latents: gradients, evaluation without effects, precision; by name."""

import pytest
import torch
from gymnasium import spaces

from tests.autoencoders.kinds import KINDS, TOKENIZERS, VAES, batch_of, frames, made
from worldmodel_v.errors import ConfigError
from worldmodel_v.schema import OWN_NAMES, Column, latent_schema, rollout_schema, space_record


def test_they_are_these() -> None:
    assert VAES == ["gaussian", "spatial", "ladder"]
    assert TOKENIZERS == ["fsq", "vq", "categorical"]
    assert sorted(KINDS) == sorted(VAES + TOKENIZERS)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_learns_and_evaluation_changes_nothing(kind: str) -> None:
    model, x = made(kind), frames()
    model.train().loss(batch_of(model, x)).minimised.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval().loss(batch_of(model, x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_its_latents_are_refused_where_frames_are_recorded(kind: str) -> None:
    columns, draws = made(kind).latents("float32")
    drawn = {name for draw in draws for name in draw.columns}
    names = {column.name for column in columns}
    parts = (names | {draw.name for draw in draws}) - drawn
    taken = names | parts | {f"next_{name}" for name in parts}
    assert taken <= {*OWN_NAMES}
    for name in taken:
        extra = Column(name=name, dtype="float32", row_shape=(), role="extra")
        actions = space_record(spaces.Discrete(2))
        with pytest.raises(ConfigError, match=f"'{name}', which the rollouts have"):
            latent_schema(
                rollout_schema(frame_shape=(16, 16), action_space=actions, observation_space={}, extras=(extra,)),
                columns,
                draws,
            )


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_latents_and_loss_are_float32(kind: str) -> None:
    model, x = made(kind).train(), frames()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch_of(model, x))
    assert loss.minimised.dtype == torch.float32
    loss.minimised.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
