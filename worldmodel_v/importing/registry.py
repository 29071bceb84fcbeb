"""The formats by name. To add one, write a module like `plain_npz`, and list it here."""

from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.ctallec import CtallecConfig
from worldmodel_v.importing.hardmaru import HardmaruConfig
from worldmodel_v.importing.minari import MinariConfig
from worldmodel_v.importing.plain_npz import NpzConfig

_CONFIGS: tuple[type[ImportConfig], ...] = (HardmaruConfig, CtallecConfig, MinariConfig, NpzConfig)

FORMATS: dict[str, type[ImportConfig]] = {config.name: config for config in _CONFIGS}
