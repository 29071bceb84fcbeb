"""A whole pipeline from one readable file: collect, train, evaluate, encode, verify, in order, skipping what is complete.

The file is YAML with a mapping for each stage. Its fields are those of the stage's config class; the pipeline fills in the
paths between stages. Each stage decides whether it is complete, so a pipeline has no state of its own that can go stale.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from worldmodel_v.autoencoders.registry import BUILT_IN
from worldmodel_v.collection import CollectConfig, CollectReport, collect
from worldmodel_v.encoding import EncodeConfig, EncodeReport, encode
from worldmodel_v.errors import ConfigError, first_line
from worldmodel_v.evaluation import EvalConfig, EvaluationReport, evaluate, require_packages, to_png
from worldmodel_v.execution import Apart
from worldmodel_v.inspection import MODEL_NAMES, preview, require_binding, require_intact
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress
from worldmodel_v.settings import local_path
from worldmodel_v.storage.dataset import SPEC_NAME
from worldmodel_v.storage.publish import publish, remove_temporaries
from worldmodel_v.surface import InPipelineFile, current, option, worded
from worldmodel_v.training import LoopConfig, TrainConfig, TrainReport, train, train_config
from worldmodel_v.untrusted import is_name

Stages = dict[str, type]
"""The class of each stage's config."""

STAGES: Stages = {"collect": CollectConfig, "train": TrainConfig, "eval": EvalConfig, "encode": EncodeConfig}
OPTIONAL_STAGES = ("eval",)
"""Stages that a file may leave out."""

COMMAND_LINE = "the command line"
"""Where a change stands."""

ON_THE_COMMAND_LINE = yaml.Mark(COMMAND_LINE, 0, 0, 0, None, 0)

MAX_FILE_BYTES = 1 << 16
MAX_DEPTH = 10
FILLED_IN = ("out", "data", "vae")
"""Fields that the pipeline sets itself. It also sets `autoencoder` of the stages after train."""

Fields = dict[str, tuple[yaml.Node, yaml.Node]]
"""A mapping's keys, each with the nodes of key and value; a node has its line number."""

ROLLOUTS_NAME, VAE_NAME, EVAL_NAME, LATENTS_NAME, PREVIEW_NAME = "rollouts", "vae", "eval", "latents", "rollouts.png"


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The stages' configs, with their paths under one output directory."""

    collect: CollectConfig
    train: LoopConfig
    eval: EvalConfig | None
    encode: EncodeConfig


@dataclass(frozen=True)
class Change:
    """A field that is set as if it stood in the file, in the place of what stands there."""

    stage: str
    field: str
    words: tuple[str, ...]
    """Its value, as words of a command line: one, or for a list any number."""


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """What a run of a pipeline found and did."""

    collect: CollectReport
    train: TrainReport
    eval: EvaluationReport | None
    encode: EncodeReport
    preview: Path
    """Frames of some of the rollouts."""

    @property
    def did_nothing(self) -> bool:
        """Whether every stage was complete already."""
        evaluated = self.eval is not None and not self.eval.did_nothing
        return not (self.collect.new_episodes or self.train.new_steps or evaluated or self.encode.new_rows)


def run_pipeline(
    file: str | Path,
    out: str | Path,
    progress: Progress | None = None,
    *,
    changes: Sequence[Change] = (),
    apart: Apart | None = None,
) -> PipelineReport:
    """Run the stages of a pipeline file, with `changes`, into `out`; a second run continues, and does only what is not
    complete. `apart` is `collect`'s.

    Raises ConfigError (the file is wrong, or `out` is a stage's own directory), what the stages raise, and VerificationFailed
    if a dataset does not match its index.
    """
    progress, out = shown(progress), local_path(out)
    pipeline = load_pipeline(file, out, changes)
    _require_no_stage(out)
    if pipeline.eval:
        require_packages()  # rather than when all is trained
    stages = STAGES | {"train": type(pipeline.train)}
    with _worded_as_in_a_file("collect", stages):
        collected = collect(pipeline.collect, progress, apart=apart)
    with _worded_as_in_a_file("train", stages):
        trained = train(pipeline.train, progress)
    with _worded_as_in_a_file("eval", stages):
        evaluated = evaluate(pipeline.eval, progress) if pipeline.eval else None
    with _worded_as_in_a_file("encode", stages):
        encoded = encode(pipeline.encode, progress)
    for path in (collected.out, encoded.out):
        progress.event("verified", f"verify: {path}: {require_intact(path, progress)}", path=path)
    require_binding(encoded.out, data=collected.out, vae=trained.out)
    progress.event("verified", "verify: the latents are of this VAE and these rollouts", path=encoded.out)
    picture = out / PREVIEW_NAME
    remove_temporaries(out, out)
    publish(picture, to_png(preview(collected.out)))
    return PipelineReport(collect=collected, train=trained, eval=evaluated, encode=encoded, preview=picture)


def load_pipeline(file: str | Path, out: str | Path, changes: Sequence[Change] = ()) -> Pipeline:
    """Read and check a pipeline file, with changes; raises ConfigError, whose message begins with the file, line and field, or
    says that the field is the command line's."""
    file, out = local_path(file), local_path(out)
    root = _compose(file)
    stages = _mapping(file, root, "the file")
    configs = _configs(file, stages, changes)
    _change(file, stages, changes, configs)
    for name, (key, _) in stages.items():
        if name not in STAGES:
            raise _error(file, key, f"unknown stage {name!r}{_hint(name, STAGES)}", expected=", ".join(STAGES))
    for name in STAGES:
        if name not in stages and name not in OPTIONAL_STAGES:
            raise _error(file, root, f"the stage {name!r} is missing", remedy=f"add `{name}: {{}}` for its defaults")
    rollouts, vae, latents = out / ROLLOUTS_NAME, out / VAE_NAME, out / LATENTS_NAME
    train = _stage(file, stages, "train", configs, {"out": vae, "data": rollouts})
    trained = {"data": rollouts, "vae": vae, "autoencoder": train.autoencoder}
    pipeline = Pipeline(
        collect=_stage(file, stages, "collect", configs, {"out": rollouts}),
        train=train,
        eval=_stage(file, stages, "eval", configs, {"out": out / EVAL_NAME, **trained}) if "eval" in stages else None,
        encode=_stage(file, stages, "encode", configs, {"out": latents, **trained}),
    )
    episodes, every = pipeline.collect.episodes, pipeline.train.holdout_every
    if pipeline.eval and pipeline.eval.holdout_every not in (None, every):  # rather than when all is trained
        with _worded_as_in_a_file("eval", configs):
            raise _error(
                file,
                _node(stages["eval"], _mapping(file, stages["eval"][1], "eval"), "holdout_every"),
                "must be that of train, or the autoencoder is measured on frames that it was trained on",
                field="holdout_every",
                expected=f"{every}, as in train",
                got=pipeline.eval.holdout_every,
                remedy="leave it out",
            )
    if episodes < every:  # rather than when all are collected
        with _worded_as_in_a_file("train", configs):
            raise _error(
                file,
                _node(stages["train"], _mapping(file, stages["train"][1], "train"), "holdout_every"),
                f"needs at least {every} episodes, {option('episodes')} is {episodes}",
                field="holdout_every",
                got=every,
                remedy="collect more, or lower it",
            )
    return pipeline


def _configs(file: Path, stages: Fields, changes: Sequence[Change]) -> Stages:
    """`STAGES`, where train has the settings of the autoencoder that a change names, or else the file."""
    change = next((each for each in changes if (each.stage, each.field) == ("train", "autoencoder")), None)
    fields = _mapping(file, stages["train"][1], "train") if "train" in stages else {}
    if change is None and "autoencoder" not in fields:
        return STAGES
    node = _node_of(change, STAGES) if change else fields["autoencoder"][1]
    with _worded_as_in_a_file("train", STAGES):
        kind = _value(file, "autoencoder", str, node)
        try:
            return STAGES | {"train": train_config(kind)}
        except ConfigError as error:
            raise _error(file, node, error.what, **error.parts) from None


def _change(file: Path, stages: Fields, changes: Sequence[Change], configs: Stages) -> None:
    """Put changes into the nodes of a file, where a stage that it leaves out begins with them."""
    changed, mark = set(), ON_THE_COMMAND_LINE
    for change in changes:
        key = yaml.ScalarNode("tag:yaml.org,2002:str", change.stage, mark, mark)
        _, node = stages.setdefault(change.stage, (key, yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)))
        if isinstance(node, yaml.ScalarNode) and node.value == "":  # `train:` with nothing below it
            node = yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
            stages[change.stage] = (stages[change.stage][0], node)
        _mapping(file, node, change.stage)  # it is one
        name = yaml.ScalarNode("tag:yaml.org,2002:str", change.field, mark, mark)
        if (change.stage, change.field) in changed:
            raise _error(file, name, f"{change.stage}.{change.field}: stands here twice", remedy="leave one out")
        changed.add((change.stage, change.field))
        kept = [(other, value) for other, value in node.value if other.value != change.field]
        node.value = [*kept, (name, _node_of(change, configs))]


def _node_of(change: Change, configs: Stages) -> yaml.Node:
    """The value of a change as the file would have it: text stays text, whatever it looks like."""
    hint = _declared(configs, change.stage, change.field)
    of_list, is_text, mark = get_origin(hint) is tuple, str in (hint, *get_args(hint)[:1]), ON_THE_COMMAND_LINE
    nodes = []
    for word in change.words:
        tag = "tag:yaml.org,2002:str" if is_text else _Loader("").resolve(yaml.ScalarNode, word, (True, False))
        nodes.append(yaml.ScalarNode(tag, word, mark, mark))
    return yaml.SequenceNode("tag:yaml.org,2002:seq", nodes, mark, mark) if of_list or len(nodes) != 1 else nodes[0]


def takes(stage: str, field: str) -> Literal["list", "flag", "value"]:
    """How many words a field takes on a command line: any number, none or one, or one; also one of a built-in autoencoder."""
    hint = next((found for each in _all_stages() if (found := _declared(each, stage, field))), None)
    return "list" if get_origin(hint) is tuple else "flag" if hint is bool else "value"


def stages_with(field: str) -> list[str]:
    """The stages that have a field of this name; also one of a built-in autoencoder."""
    return [stage for stage in STAGES if any(_declared(each, stage, field) for each in _all_stages())]


def _all_stages() -> Iterator[Stages]:
    """The stages with each built-in autoencoder."""
    yield STAGES
    for kind in BUILT_IN:
        yield STAGES | {"train": train_config(kind)}


def _declared(configs: Stages, stage: str, field: str) -> Any:
    """The type of a stage's field; None if there is none."""
    return get_type_hints(configs[stage]).get(field) if stage in configs else None


def _require_no_stage(out: Path) -> None:
    """Raise ConfigError if `out` itself is a dataset or a VAE: nobody would look for a pipeline's output inside it."""
    for name in (SPEC_NAME, *MODEL_NAMES):
        if (out / name).exists():
            raise ConfigError(
                f"is the directory of a single stage (it holds {name})",
                field="out",
                got=out,
                remedy="give a new one, or that of a pipeline",
            )


def _worded_as_in_a_file(stage: str, configs: Stages) -> AbstractContextManager[None]:
    """In the block a message calls settings as a pipeline file does."""
    return worded(InPipelineFile(stage, {name: _known(configs, name) for name in configs}, outside=current()))


def _stage(file: Path, stages: Fields, stage: str, configs: Stages, filled_in: dict[str, Any]) -> Any:
    fields = _mapping(file, stages[stage][1], stage)
    config, known = configs[stage], _known(configs, stage)
    for name, (node, _) in fields.items():
        if name in FILLED_IN:
            raise _error(file, node, f"{stage}.{name}: is set by {option('out')}", remedy="leave it out")
        if name in filled_in:
            raise _error(file, node, f"{stage}.{name}: is the one of train", remedy="leave it out")
        if name not in known:
            unknown = f"{stage}.{name}: unknown field{_hint(name, known)}"
            raise _error(file, node, unknown, expected=f"one of {', '.join(known)}")
    hints = get_type_hints(config)
    with _worded_as_in_a_file(stage, configs):
        values = {name: _value(file, name, hints[name], node) for name, (_, node) in fields.items()}
        try:
            return config(**values, **filled_in)
        except ConfigError as error:
            raise _error(file, _node(stages[stage], fields, error.field), error.what, **error.parts) from None


def _node(stage: tuple[yaml.Node, yaml.Node], fields: Fields, name: str | None) -> yaml.Node:
    """Where a field stands, or its stage if the file leaves it out."""
    return fields.get(name or "", stage)[0]


def _known(configs: Stages, stage: str) -> list[str]:
    """The fields that a stage may have in the file."""
    hidden = FILLED_IN if stage in ("collect", "train") else (*FILLED_IN, "autoencoder")
    return [field.name for field in dataclasses.fields(configs[stage]) if field.name not in hidden]


class _Loader(yaml.SafeLoader):
    """Loads YAML's safe values, and reads 1e-3 as a number (YAML 1.1, which PyYAML follows, requires 1.0e-3).

    It refuses deep nesting and aliases. A few lines of aliases can expand to more values than memory holds.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        is_alias = self.check_event(yaml.AliasEvent)
        if is_alias or self._depth > MAX_DEPTH:
            problem = "aliases are not taken: write the value out" if is_alias else "nested too deeply"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """None that YAML 1.1 reads in base 8 or 60, or as text, as nobody means it so: 010 would be 8, 1:30 90, and 09 a text."""
    if ":" in node.value or WITH_ZEROS.fullmatch(node.value):
        base = "base 60" if ":" in node.value else "base 8, or as text"
        problem = f"YAML reads {node.value:.20} in {base}; write a decimal number, or text in quotes"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    whole = node.tag == "tag:yaml.org,2002:int"
    return loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)


WITH_ZEROS = re.compile(r"[-+]?0[0-9_]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", WITH_ZEROS, list("-+0"))
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def _value(file: Path, name: str, expected: Any, node: yaml.Node) -> Any:
    """The value of one field, of exactly the type that its config class declares; the file has a list for a tuple.

    A dictionary is a mapping, or its JSON as text; the config checks both.
    """
    if get_origin(expected) is dict:
        return _object(file, name, node)
    takes_list = get_origin(expected) is tuple
    if not isinstance(node, yaml.SequenceNode if takes_list else yaml.ScalarNode):
        raise _error(file, node, field=name, expected="a list: [a, b]" if takes_list else "one value")
    try:
        value = _Loader("").construct_object(node, deep=True)
        value = TypeAdapter(expected).validate_python(tuple(value) if takes_list else value, strict=True)
        _require_bounded(value if takes_list else (value,))
        return value
    except ValidationError as error:
        found = node.value if isinstance(node.value, str) else value
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise _error(file, node, field=name, expected=expected, got=found) from None
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise _error(file, node, f"not a plain value ({first_line(error)})", field=name) from None


def _object(file: Path, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        raise _error(file, node, field=name, expected="a mapping: {name: value}")
    if isinstance(node, yaml.MappingNode):
        for each in _mappings(node):
            _mapping(file, each, option(name))
    try:
        value = _Loader("").construct_object(node, deep=True)
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise _error(file, node, f"not a plain value ({first_line(error)})", field=name) from None
    if not isinstance(value, dict | str):
        raise _error(file, node, field=name, expected="a mapping: {name: value}", got=node.value)
    return value


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    """A node's mappings, at any depth."""
    if isinstance(node, yaml.MappingNode):
        yield node
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    for each in inner:
        for part in each if isinstance(each, tuple) else (each,):
            yield from _mappings(part)


_UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises where a tag does not fit its value, as in `!!int ""`."""


def _require_bounded(values: tuple[Any, ...]) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no setting")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number of more than 64 bits")


def _compose(file: Path) -> yaml.Node:
    if file.exists() and not file.is_file():  # such as a pipe, which would be waited for
        raise ConfigError("is no regular file", where=file, remedy="give a pipeline file such as pipelines/quickstart.yaml")
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give a pipeline file such as pipelines/quickstart.yaml"
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot be read ({why})", where=file, remedy=remedy) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"has more than {MAX_FILE_BYTES} bytes, which no pipeline needs", where=f"{file}:1")
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"not valid YAML: {error.problem}", where=f"{file}:{line}", remedy="mend the line") from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = first_line(error)
        raise ConfigError(f"not valid YAML: {problem}", where=f"{file}:1", remedy="mend the file") from None
    if root is None:
        raise ConfigError("the file is empty", where=f"{file}:1", expected=f"the stages {', '.join(STAGES)}")
    return root


def _mapping(file: Path, node: yaml.Node, what: str) -> Fields:
    if isinstance(node, yaml.ScalarNode) and node.value == "":
        return {}
    if not isinstance(node, yaml.MappingNode):
        found = f"{node.value!r:.200}" if isinstance(node, yaml.ScalarNode) else "a list"
        raise _error(file, node, f"{what}: expected fields (name: value), got {found}")
    if node.tag != "tag:yaml.org,2002:map":
        raise _error(file, node, f"{what}: expected plain fields, got the tag {node.tag!r:.200}")
    fields: Fields = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not is_name(key.value):
            raise _error(file, key, f"{what}: expected a name")
        if key.value in fields:
            raise _error(file, key, f"{what}.{key.value}: stands here twice", remedy="delete one")
        fields[str(key.value)] = (key, value)
    return fields


def _error(file: Path, node: yaml.Node, what: str = "", **parts: Any) -> ConfigError:
    mark = node.start_mark
    return ConfigError(what, **parts | {"where": COMMAND_LINE if mark.name == COMMAND_LINE else f"{file}:{mark.line + 1}"})


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
