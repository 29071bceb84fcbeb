"""Environments -> rollouts: one episode (`rollout`), one block of them as a shard (`block`), the whole run (`collector`)."""

from worldmodel_v.collect.collector import CollectReport, collect
from worldmodel_v.collect.config import CollectConfig

__all__ = ["CollectConfig", "CollectReport", "collect"]
