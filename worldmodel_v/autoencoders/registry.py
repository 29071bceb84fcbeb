"""Autoencoders by name: the built-in ones, and a user's own as `module:Class`. Only this file distinguishes them."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any

from worldmodel_v.autoencoders.base import Autoencoder, AutoencoderConfig, AutoencoderSettings
from worldmodel_v.code.modules import KNOWN, module_file
from worldmodel_v.code.origin import code_source
from worldmodel_v.errors import ConfigError, one_line
from worldmodel_v.own_modules import load_own
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.surface import option
from worldmodel_v.untrusted import canonical_json, require_types

BUILT_IN = {
    "gaussian": "worldmodel_v.autoencoders.gaussian.vae:VAE",
    "spatial": "worldmodel_v.autoencoders.gaussian.spatial:SpatialVAE",
    "ladder": "worldmodel_v.autoencoders.gaussian.ladder:LadderVAE",
    "fsq": "worldmodel_v.autoencoders.tokens.fsq:FSQ",
    "vq": "worldmodel_v.autoencoders.tokens.vq:VQ",
    "categorical": "worldmodel_v.autoencoders.tokens.categorical:Categorical",
}
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


def configure(kind: str, settings: Any, **of_the_data: Any) -> AutoencoderConfig:
    """The config of a new autoencoder, from a training's settings and the data; raises ConfigError if they do not fit it."""
    named = {each.name for each in fields(autoencoder_class(kind).config_class)} & vars(settings).keys()
    try:
        recorded = canonical_json({name: getattr(settings, name) for name in named} | of_the_data)
        return config_from_json(kind, json.loads(recorded))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"its settings cannot be recorded: {error}", field="autoencoder", got=kind) from None


def settings_class(kind: str, taken: Collection[str] = ()) -> type[AutoencoderSettings]:
    """The class of what a user sets of an autoencoder.

    Raises ConfigError if it cannot be loaded, if a setting has no default, or if its name is `taken`.
    """
    found = autoencoder_class(kind).settings_class
    refusal = partial(ConfigError, field="autoencoder", got=kind)
    if not (isinstance(found, type) and issubclass(found, AutoencoderSettings)):
        raise refusal("its settings_class is no subclass of worldmodel_v.autoencoders.AutoencoderSettings")
    others = {*taken, *(each.name for each in fields(AutoencoderConfig))}
    for each in fields(found):
        if each.name in others:
            raise refusal(f"its setting {each.name} has the name of another one of wm-train", remedy="rename it")
        if each.default is each.default_factory is MISSING:
            raise refusal(f"its setting {each.name} has no default", remedy="give it one")
    return found


def refuse_foreign(kind: str, names: Iterable[str]) -> None:
    """Raise ConfigError for the name of a setting that only other autoencoders of this package have."""
    own = {each.name for each in fields(settings_class(kind))}
    for name in (name for name in names if name not in own):
        if having := [other for other in BUILT_IN if name in {each.name for each in fields(settings_class(other))}]:
            remedy = f"leave it out, or set {option('autoencoder')} to {' or '.join(having)}"
            raise ConfigError(f"is no setting of the autoencoder {kind}", field=name, remedy=remedy)


def sha256_of_source(kind: str) -> str:
    """SHA-256 of the code of a user's own autoencoder; empty for one of this package. Raises ConfigError."""
    return "" if kind in BUILT_IN else sha256_of_own(autoencoder_class(kind), kind)


def sha256_of_own(code: Callable, name: str) -> str:
    """SHA-256 of a user's own code, which a setting names: of its file, and of what that imports (see
    `worldmodel_v.code.origin`); empty for code of PyTorch's."""
    module = name.partition(":")[0]
    source, file = code_source(code, module), module_file(module)
    if file is not None and module.partition(".")[0] not in KNOWN:  # also in a package, which may be edited under one version
        source |= {module: sha256_of_file(file)}
    return hashlib.sha256(canonical_json(source).encode()).hexdigest() if source else ""
