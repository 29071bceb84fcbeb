"""worldmodel_v: the V stage of a World Model, as a data pipeline: collect, train, encode.

The public names below are loaded when they are first used, so that importing this package loads neither torch nor ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldmodel_v.autoencoders.gaussian import load_vae
    from worldmodel_v.collection import CollectConfig, collect
    from worldmodel_v.data import FrameStream, LatentSequences, LatentStream
    from worldmodel_v.encoding import EncodeConfig, Encoder, encode
    from worldmodel_v.evaluation import EvalConfig, evaluate
    from worldmodel_v.importing import import_recordings
    from worldmodel_v.records import Episode
    from worldmodel_v.selection import SelectConfig, select
    from worldmodel_v.sources import EpisodeSource, Recorder
    from worldmodel_v.storage import Dataset, open_dataset, verify
    from worldmodel_v.training import TrainConfig, train

__version__ = "0.1.0"

__all__ = [
    "CollectConfig",
    "Dataset",
    "EncodeConfig",
    "Encoder",
    "Episode",
    "EpisodeSource",
    "EvalConfig",
    "FrameStream",
    "LatentSequences",
    "LatentStream",
    "Recorder",
    "SelectConfig",
    "TrainConfig",
    "__version__",
    "collect",
    "encode",
    "evaluate",
    "import_recordings",
    "load_vae",
    "open_dataset",
    "select",
    "train",
    "verify",
]

_HOMES = {
    "collection": ("CollectConfig", "collect"),
    "training": ("TrainConfig", "train"),
    "encoding": ("EncodeConfig", "Encoder", "encode"),
    "evaluation": ("EvalConfig", "evaluate"),
    "selection": ("SelectConfig", "select"),
    "importing": ("import_recordings",),
    "sources": ("EpisodeSource", "Recorder"),
    "data": ("FrameStream", "LatentSequences", "LatentStream"),
    "storage": ("Dataset", "open_dataset", "verify"),
    "records": ("Episode",),
    "autoencoders.gaussian": ("load_vae",),
}
"""A module -> the names above that are its own."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
