"""Autoencoders by name: the built-in ones, and a user's own as `module:Class`. Only this file distinguishes them."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from worldmodel_v.autoencoders.base import Autoencoder, AutoencoderConfig
from worldmodel_v.errors import ConfigError, one_line
from worldmodel_v.own_modules import load_own
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.untrusted import canonical_json, parse_object, require_types

BUILT_IN = {"gaussian": "worldmodel_v.autoencoders.gaussian.vae:VAE"}
"""Name -> the `module:Class` that is loaded for it."""

DEFAULT = "gaussian"


def autoencoder_class(kind: str) -> type[Autoencoder]:
    """The class of an autoencoder, by its name or as `module:Class`, whose module is imported; raises ConfigError."""
    source = BUILT_IN.get(kind, kind)
    _, separator, attribute = source.partition(":")
    if not separator:
        raise ConfigError(
            "unknown", field="autoencoder", got=kind, expected=f"{', '.join(BUILT_IN)}, or module:Class of your own"
        )
    refusal = partial(ConfigError, field="autoencoder", got=kind, expected="module:Class on the Python path")
    found = load_own(source, lambda why: refusal(f"cannot be loaded: {why}"))
    if not (isinstance(found, type) and issubclass(found, Autoencoder)):
        raise ConfigError(f"{attribute} is no subclass of worldmodel_v.autoencoders.Autoencoder", field="autoencoder", got=kind)
    return found


def create(kind: str, config: AutoencoderConfig) -> Autoencoder:
    """An autoencoder with fresh weights; raises ConfigError if it cannot be built from this config."""
    try:
        model = autoencoder_class(kind)(config)
    except (ConfigError, RuntimeError, MemoryError):  # the callers handle these
        raise
    except Exception as error:
        raise ConfigError(f"cannot be built: {one_line(error)}", field="autoencoder", got=kind) from error
    model.kind = kind
    return model


def config_from_json(kind: str, recorded: Mapping[str, Any]) -> AutoencoderConfig:
    """The config that was recorded as JSON; raises ValueError, TypeError or ConfigError if it is not one of this kind."""
    config_class = autoencoder_class(kind).config_class
    require_types(dict(recorded), config_class)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()}
    return config_class(**values)


def configure(kind: str, settings: Mapping[str, Any], kwargs: Mapping[str, Any], **of_the_data: Any) -> AutoencoderConfig:
    """The config of a new autoencoder, from the data (`of_the_data`), a training's `settings`, and its own `kwargs`.

    Raises ConfigError if it does not have one of the settings, or if a value is not valid.
    """
    own = {each.name for each in fields(autoencoder_class(kind).config_class)}
    shared = own & settings.keys() - of_the_data.keys()
    if unknown := sorted(kwargs.keys() - (own - shared - of_the_data.keys())):
        more = ", ".join(sorted(own - shared - of_the_data.keys())) or "none"
        raise ConfigError(f"{kind} has no {unknown[0]!r} to be set there; it has {more}", field="autoencoder_kwargs")
    recorded = {name: settings[name] for name in shared} | dict(kwargs) | of_the_data
    try:
        return config_from_json(kind, json.loads(canonical_json(recorded)))
    except ConfigError as error:
        if error.field not in kwargs:
            raise
        raise ConfigError(f"{error.field}: expected {error.expected}, got {error.got!r}", field="autoencoder_kwargs") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error), field="autoencoder_kwargs") from None


def foreign_settings(kind: str, config: Any) -> list[str]:
    """Fields of a dataclass that only other autoencoders have, and that are not at their default."""
    own = {each.name for each in fields(autoencoder_class(kind).config_class)}
    of_others = {each.name for other in BUILT_IN for each in fields(autoencoder_class(other).config_class)} - own
    given = [each for each in fields(config) if each.name in of_others and each.default is not MISSING]
    return [each.name for each in given if getattr(config, each.name) != each.default]


def source_of(kind: str) -> dict[str, str]:
    """What a training records with the name of a user's own autoencoder: the SHA-256 of its file; raises ConfigError."""
    if kind in BUILT_IN:
        return {}
    file = inspect.getsourcefile(autoencoder_class(kind))
    return {"autoencoder_sha256": sha256_of_file(Path(file))} if file else {}


def parsed_kwargs(text: str) -> dict[str, Any]:
    """`--autoencoder-kwargs` as a dictionary; raises ConfigError if it is no JSON object."""
    try:
        return parse_object(text)
    except ValueError as error:
        raise ConfigError(f"is not JSON such as '{{\"levels\": 8}}': {error}", field="autoencoder_kwargs", got=text) from None
