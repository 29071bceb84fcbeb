"""The small rollouts of the tests of training."""

from tests.training.conftest import tiny_rollouts

__all__ = ["tiny_rollouts"]
