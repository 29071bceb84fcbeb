"""What a setting is called where the user has set it: `--holdout-every 5`, `train.holdout_every: 5` or `holdout_every=5`.

Every message that names a setting, errors above all, gets the words from `option`. A command, and each stage of a pipeline
file, chooses its own words with `worded`; without it, the caller is a Python program. A message gets its words where it is
made, so tasks for workers carry the surface with them: `taken_along`.

Rejected: messages in the words of the command line, which the other surfaces translate. They would have to parse prose.
"""

import functools
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

MAX_LENGTH = 200
"""Characters of a value that are shown."""

Surface = Callable[[str, Any, str | None], str]
"""(name of a field, value or None, stage or None) -> the setting in words. It can be pickled."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_python(name: str, value: Any, stage: str | None) -> str:
    """`holdout_every=5`, as an argument."""
    return name if value is None else f"{name}={_python(value)}"


def on_the_command_line(name: str, value: Any, stage: str | None) -> str:
    """`--holdout-every 5`, `--compile`, `--no-resume`, as the commands' parser has them; `from_` is `--from`."""
    spelled = name.rstrip("_").replace("_", "-")
    if value is None or value is True:
        return f"--{spelled}"
    return f"--no-{spelled}" if value is False else f"--{spelled} {_words(value)}"


@dataclass(frozen=True)
class InPipelineFile:
    """`train.holdout_every: 5`, as in a pipeline file. A setting that the file cannot hold is worded as `outside` words it."""

    stage: str
    """The stage that is running. If it has no such setting, the other stages are searched."""

    fields: Mapping[str, Collection[str]]
    """For each stage, the names of the fields that a file may have there."""

    outside: Surface
    """The surface of the caller that runs the file."""

    def __call__(self, name: str, value: Any, stage: str | None) -> str:
        """The setting in words."""
        for each in (stage or self.stage, *self.fields):
            if name in self.fields[each]:
                return f"{each}.{name}" if value is None else f"{each}.{name}: {_yaml(value)}"
        return self.outside(name, value, stage)


_surface: ContextVar[Surface] = ContextVar("surface", default=in_python)


def option(name: str, value: Any = None, *, stage: str | None = None) -> str:
    """A setting, by the name of its field, as a user of the current surface writes it, with its value if one is given.

    `stage` (collect, train, eval, encode) is needed only if the running stage has another setting of this name.
    """
    return _surface.get()(name, value, stage)


def current() -> Surface:
    """The surface that `option` uses now."""
    return _surface.get()


@contextmanager
def worded(surface: Surface) -> Iterator[None]:
    """Within the block, in this thread, `option` uses this surface."""
    before = _surface.set(surface)
    try:
        yield
    finally:
        _surface.reset(before)


def taken_along(setup: Callable[[], Callable[[Task], Result]]) -> Callable[[], Callable[[Task], Result]]:
    """`setup`, and the function that it returns, use the current surface wherever they run. Picklable if `setup` is."""
    return functools.partial(_set_up, setup, current())


def _set_up(setup: Callable[[], Callable[[Task], Result]], surface: Surface) -> Callable[[Task], Result]:
    with worded(surface):
        run = setup()
    return worded(surface)(run)


def _python(value: Any) -> str:
    return f"{str(value) if isinstance(value, Path) else value!r:.{MAX_LENGTH}}"


def _words(value: Any) -> str:
    """Words of a command line, quoted as a shell wants them."""
    words = [str(each) for each in (value if isinstance(value, list | tuple) else (value,))]
    return f"{' '.join(shlex.quote(word) if word.isprintable() else repr(word) for word in words):.{MAX_LENGTH}}"


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    plain = not isinstance(value, str | Path) or re.fullmatch(r"[A-Za-z_./][\w./-]*", str(value))
    text = json.dumps(str(value), ensure_ascii=False)
    return f"{(str(value).lower() if isinstance(value, bool) else str(value)) if plain else text:.{MAX_LENGTH}}"
