"""What an autoencoder goes from one end to the other with."""

from pathlib import Path

import pytest

from tests.conftest import stamp_config
from tests.training.conftest import tiny_rollouts
from worldmodel_v.collection import collect

__all__ = ["tiny_rollouts"]


@pytest.fixture(scope="session")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world at 16x24: 8 episodes in 3 shards."""
    out = tmp_path_factory.mktemp("small") / "rollouts"
    collect(stamp_config(out, frame_size="16x24"))
    return out
