"""The formats by name. To add one, write a module like `plain_npz`, and list it here."""

from worldmodel_v.export.adsp import AdspConfig
from worldmodel_v.export.config import ExportConfig
from worldmodel_v.export.ctallec import CtallecConfig
from worldmodel_v.export.dreamer4 import Dreamer4Config
from worldmodel_v.export.hardmaru import HardmaruConfig
from worldmodel_v.export.lance import LanceConfig
from worldmodel_v.export.lerobot import LerobotConfig
from worldmodel_v.export.minari import MinariConfig
from worldmodel_v.export.parquet import ParquetConfig
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.export.stable_worldmodel import StableWorldmodelConfig
from worldmodel_v.export.zacwellmer import ZacwellmerConfig

_CONFIGS: tuple[type[ExportConfig], ...] = (
    HardmaruConfig,
    ZacwellmerConfig,
    AdspConfig,
    CtallecConfig,
    MinariConfig,
    StableWorldmodelConfig,
    LanceConfig,
    LerobotConfig,
    Dreamer4Config,
    ParquetConfig,
    NpzConfig,
)

FORMATS: dict[str, type[ExportConfig]] = {config.name: config for config in _CONFIGS}
