"""Any source -> rollouts: one block of episodes as a shard (`block`), the whole run (`collector`)."""

from worldmodel_v.collection.collector import CollectReport, collect, collect_source
from worldmodel_v.collection.config import CollectConfig, CollectionConfig

__all__ = ["CollectConfig", "CollectReport", "CollectionConfig", "collect", "collect_source"]
