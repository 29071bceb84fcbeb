"""The commands whose first word is a format, `wm-export` and `wm-import`: which word it is, and what to say without one."""

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Annotated, Any, Union

import tyro

from worldmodel_v.cli.main import leave_with_error, output_asked_for, parse
from worldmodel_v.errors import ConfigError


def run_format(
    program: str,
    words: list[str],
    formats: Collection[str],
    run: Callable[[str, list[str]], None],
    *,
    take_a_word: Collection[str],
    overview: type[Any],
    configs: Callable[[], Mapping[str, type[Any]]],
    example: str,
) -> None:
    """`run` the first word that names a format, with the other words as its options. Without one, print the help of
    `overview`, or the version or completion of all `configs`; else exit with an error that shows the `example`.

    The word behind one of the options `take_a_word` is its value, even if it is the name of a format.
    """
    befores = pairwise(["", *words])
    places = [place for place, (before, word) in enumerate(befores) if word in formats and before not in take_a_word]
    if places:
        name = words.pop(places[0])
        run(name, words)
    elif {"-h", "--help"}.intersection(words):
        parse(program, overview, args=["--help"])
    elif any(word == "--version" or word.startswith("--tyro-") for word in words):
        parse(program, any_of(configs()), args=words)
    else:
        found = f"unknown format {words[0]!r}" if words and not words[0].startswith("-") else "no format is named"
        error = ConfigError(f"{found}; expected one of {', '.join(formats)}, such as `{example}`")
        leave_with_error(program, error, output_asked_for(words))


def any_of(configs: Mapping[str, type[Any]]) -> Any:
    """All configs as subcommands, by these names."""
    subcommands = [Annotated[config, tyro.conf.subcommand(name)] for name, config in configs.items()]
    return Union[tuple(subcommands)]  # noqa: UP007
