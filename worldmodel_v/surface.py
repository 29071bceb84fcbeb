"""What a setting is called where the user has set it: `--holdout-every 5`, `train.holdout_every: 5` or `holdout_every=5`.

Whatever speaks of a setting to a user, errors above all, asks `option` for its words. A command and each stage of a pipeline
file say with `worded` how theirs are called; where nobody has, a Python program is the caller. A message is put into words
where it is made, so what is sent elsewhere takes the surface along: `taken_along` for what workers do.

Rejected: words of the command line alone, translated for the others as they pass. That reads messages back out of prose.
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
    """`--holdout-every 5`, `--compile`, `--no-resume`, as the commands' parser has them."""
    spelled = name.replace("_", "-")
    if value is None or value is True:
        return f"--{spelled}"
    return f"--no-{spelled}" if value is False else f"--{spelled} {_words(value)}"


@dataclass(frozen=True)
class InPipelineFile:
    """`train.holdout_every: 5`, as in a pipeline file; what it does not hold is set `outside` of it."""

    stage: str
    """Which one is at work. It is looked at first; a setting that it does not have is another's."""

    fields: Mapping[str, Collection[str]]
    """The name of a stage -> those of the fields that a file may have there."""

    outside: Surface
    """Of whoever runs the file."""

    def __call__(self, name: str, value: Any, stage: str | None) -> str:
        """The setting in words."""
        for each in (stage or self.stage, *self.fields):
            if name in self.fields[each]:
                return f"{each}.{name}" if value is None else f"{each}.{name}: {_yaml(value)}"
        return self.outside(name, value, stage)


_surface: ContextVar[Surface] = ContextVar("surface", default=in_python)


def option(name: str, value: Any = None, *, stage: str | None = None) -> str:
    """A setting, by the name of its field, as the user of the current surface writes it, with its value if there is one.

    `stage` (collect, train, eval, encode) says whose it is, where the stage at work has one of this name too.
    """
    return _surface.get()(name, value, stage)


def current() -> Surface:
    """The surface that `option` speaks to."""
    return _surface.get()


@contextmanager
def worded(surface: Surface) -> Iterator[None]:
    """Let `option` speak to this surface inside of the block, in this thread."""
    before = _surface.set(surface)
    try:
        yield
    finally:
        _surface.reset(before)


def taken_along(setup: Callable[[], Callable[[Task], Result]]) -> Callable[[], Callable[[Task], Result]]:
    """`setup` and what it returns, which speak to the current surface wherever they are called. Pickled, if `setup` can be."""
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
