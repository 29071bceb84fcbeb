"""One name for a stage's function and for its module.

Python makes a submodule an attribute of its package as soon as anybody imports it: `worldmodel_v.collect` would be the function
or the module, depending on what was imported before. So it is always the function, and the function carries the stage's names:
`from worldmodel_v import collect` and `from worldmodel_v.collect import CollectConfig, collect` work in every order.
"""

import sys
from types import ModuleType
from typing import Any, cast


def stands_for(module: str, function: Any, stage: ModuleType) -> None:
    """Put `function` in the place of the module of this name, with the public names of `stage` as attributes."""
    vars(function).update({name: getattr(stage, name) for name in stage.__all__})
    sys.modules[module] = cast(ModuleType, function)
