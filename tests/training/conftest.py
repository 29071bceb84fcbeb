"""Rollouts so small that a training on them is over at once."""

from pathlib import Path

import pytest

from tests.builders import make_episode, rollout_spec
from worldmodel_v.storage import DatasetWriter, build_shard


@pytest.fixture(scope="session")
def tiny_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 episodes of 20 random frames of 8x8 in 2 shards, read-only."""
    out, spec = tmp_path_factory.mktemp("tiny") / "rollouts", rollout_spec()
    with DatasetWriter(out, spec) as writer:
        for shard in range(2):
            episodes = [make_episode(4 * shard + i, 19) for i in range(4)]
            writer.commit(shard, build_shard(episodes, spec_hash=spec.hash))
    return out
