"""Where episodes come from: a Gymnasium environment, a source of one's own, or a loop of one's own.

A source says what determines its episodes, and makes each from its number alone; `collect` has them made in blocks, wherever
tasks run, and commits them as shards. A `Recorder` writes what a loop that somebody else steps brings.
"""

from worldmodel_v.sources.base import Source
from worldmodel_v.sources.gym import GymSource
from worldmodel_v.sources.own import EpisodeSource, OwnSource
from worldmodel_v.sources.recorder import Recorder

__all__ = ["EpisodeSource", "GymSource", "OwnSource", "Recorder", "Source"]
