"""The formats by name. To add one, write a module like `plain_npz`, and list it here."""

from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.ctallec import CtallecImportConfig
from worldmodel_v.importing.hardmaru import HardmaruImportConfig
from worldmodel_v.importing.lerobot import LeRobotImportConfig
from worldmodel_v.importing.minari import MinariImportConfig
from worldmodel_v.importing.plain_npz import NpzImportConfig
from worldmodel_v.importing.stable_worldmodel import StableWorldmodelImportConfig
from worldmodel_v.importing.video import VideoImportConfig

_CONFIGS: tuple[type[ImportConfig], ...] = (
    *(HardmaruImportConfig, CtallecImportConfig, MinariImportConfig, NpzImportConfig),
    *(VideoImportConfig, LeRobotImportConfig, StableWorldmodelImportConfig),
)

FORMATS: dict[str, type[ImportConfig]] = {config.name: config for config in _CONFIGS}
