"""Where episodes come from: a Gymnasium environment, a user's own source, or a user's own loop.

A source says what determines its episodes, and makes each from its number alone. `collect` sends blocks of episodes to
workers and commits them as shards. A `Recorder` writes the episodes of a loop that the user runs.
"""

from worldmodel_v.sources.base import Source
from worldmodel_v.sources.gym import GymSource
from worldmodel_v.sources.own import EpisodeSource, OwnSource
from worldmodel_v.sources.recorder import Recorder

__all__ = ["EpisodeSource", "GymSource", "OwnSource", "Recorder", "Source"]
