"""The formats by name. To add one, write a module like `plain_npz`, and list it here."""

from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.plain_npz import NpzConfig

_CONFIGS: tuple[type[ImportConfig], ...] = (NpzConfig,)

FORMATS: dict[str, type[ImportConfig]] = {config.name: config for config in _CONFIGS}
