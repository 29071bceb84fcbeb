"""A whole pipeline from one readable file: collect, train, evaluate, encode, verify, in order, skipping what is complete.

The file is YAML with a mapping for each stage. Its fields are those of the stage's config class; the pipeline fills in the
paths between stages. Each stage decides whether it is complete, so a pipeline has no state of its own that can go stale.
"""

import contextlib
import dataclasses
import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from worldmodel_v.collect import CollectConfig, CollectReport, collect
from worldmodel_v.encode import EncodeConfig, EncodeReport, encode
from worldmodel_v.errors import ConfigError, PipelineFileError, WorldModelError
from worldmodel_v.evaluate import EvalConfig, EvaluationReport, evaluate_vae, to_png
from worldmodel_v.inspection import MODEL_NAMES, preview, require_binding, require_intact
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.storage.dataset import SPEC_NAME
from worldmodel_v.storage.publish import publish, remove_temporaries
from worldmodel_v.train import TrainConfig, TrainReport, train
from worldmodel_v.untrusted import is_name

STAGES: dict[str, type] = {"collect": CollectConfig, "train": TrainConfig, "eval": EvalConfig, "encode": EncodeConfig}
OPTIONAL_STAGES = ("eval",)
"""Stages that a file may leave out."""

MAX_FILE_BYTES = 1 << 16
MAX_DEPTH = 10
FILLED_IN = ("out", "data", "vae")
"""Fields that the pipeline sets itself. It also sets `autoencoder` of the stages after train."""

_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z]+(?:-[a-z]+)*)")
"""An option of a command, in the text of an error."""

ROLLOUTS_NAME, VAE_NAME, EVAL_NAME, LATENTS_NAME, PREVIEW_NAME = "rollouts", "vae", "eval", "latents", "rollouts.png"


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The stages' configs, with their paths under one output directory."""

    collect: CollectConfig
    train: TrainConfig
    eval: EvalConfig | None
    encode: EncodeConfig


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


def run_pipeline(file: Path, out: Path, progress: Progress | None = None) -> PipelineReport:
    """Run the stages of a pipeline file into `out`; a second run continues, and does only what is not complete.

    Raises PipelineFileError, ConfigError (`out` is a stage's own directory), what the stages raise, and VerificationFailed if a
    dataset does not match its index.
    """
    progress = progress or Silent()
    pipeline = load_pipeline(file, out)
    _require_no_stage(out)
    with _options_as_in(file, "collect"):
        collected = collect(pipeline.collect, progress)
    with _options_as_in(file, "train"):
        trained = train(pipeline.train, progress)
    with _options_as_in(file, "eval"):
        evaluated = evaluate_vae(pipeline.eval, progress) if pipeline.eval else None
    with _options_as_in(file, "encode"):
        encoded = encode(pipeline.encode, progress)
    for path in (collected.out, encoded.out):
        progress.event("verified", f"verify: {path}: {require_intact(path, progress)}", path=path)
    require_binding(encoded.out, data=collected.out, vae=trained.out)
    progress.event("verified", "verify: the latents are of this VAE and these rollouts", path=encoded.out)
    picture = out / PREVIEW_NAME
    remove_temporaries(out)
    publish(picture, to_png(preview(collected.out)))
    return PipelineReport(collect=collected, train=trained, eval=evaluated, encode=encoded, preview=picture)


def load_pipeline(file: Path, out: Path) -> Pipeline:
    """Read and check a pipeline file; raises PipelineFileError, whose message begins with the file, line and field."""
    root = _compose(file)
    stages = _mapping(file, root, "the file")
    for name, (key, _) in stages.items():
        if name not in STAGES:
            raise _error(file, key, f"unknown stage {name!r}{_hint(name, STAGES)}; expected {', '.join(STAGES)}")
    for name in STAGES:
        if name not in stages and name not in OPTIONAL_STAGES:
            raise _error(file, root, f"the stage {name!r} is missing; add `{name}: {{}}` for its defaults")
    rollouts, vae, latents = out / ROLLOUTS_NAME, out / VAE_NAME, out / LATENTS_NAME
    train = _stage(file, stages, "train", {"out": vae, "data": rollouts})
    trained = {"data": rollouts, "vae": vae, "autoencoder": train.autoencoder}
    pipeline = Pipeline(
        collect=_stage(file, stages, "collect", {"out": rollouts}),
        train=train,
        eval=_stage(file, stages, "eval", {"out": out / EVAL_NAME, **trained}) if "eval" in stages else None,
        encode=_stage(file, stages, "encode", {"out": latents, **trained}),
    )
    episodes, every = pipeline.collect.episodes, pipeline.train.holdout_every
    if episodes < every:  # now, not after collecting
        raise _error(
            file,
            stages["train"][0],
            f"train.holdout_every: holding out every {every}th episode needs at least {every}, collect.episodes is {episodes}; "
            "collect more, or lower it",
        )
    return pipeline


def _require_no_stage(out: Path) -> None:
    """Raise ConfigError if `out` itself is a dataset or a VAE: nobody would look for a pipeline's output inside it."""
    for name in (SPEC_NAME, *MODEL_NAMES):
        if (out / name).exists():
            raise ConfigError(
                f"--out {out}: is the directory of a single stage (it holds {name}); give a new one, or that of a pipeline"
            )


@contextlib.contextmanager
def _options_as_in(file: Path, stage: str) -> Iterator[None]:
    """If an error names options of the stage's command, add their names in the file to it."""
    try:
        yield
    except WorldModelError as error:
        found = [(no, option, option.replace("-", "_")) for no, option in _OPTION.findall(str(error))]
        known = _known(stage)
        names = {f"--{no}{option}": f"{stage}.{name}{': false' if no else ''}" for no, option, name in found if name in known}
        if not names:
            raise
        said = ", ".join(f"{option} is {name}" for option, name in names.items())
        raise type(error)(f"{error} (in {file.name}, {said})") from error


Fields = dict[str, tuple[yaml.Node, yaml.Node]]
"""A mapping's keys, each with the nodes of key and value; a node has its line number."""


def _stage(file: Path, stages: Fields, stage: str, filled_in: dict[str, Any]) -> Any:
    key, value = stages[stage]
    fields = _mapping(file, value, stage)
    config = STAGES[stage]
    known = _known(stage)
    for name, (node, _) in fields.items():
        if name in FILLED_IN:
            raise _error(file, node, f"{stage}.{name}: is set by --out; leave it out")
        if name in filled_in:
            raise _error(file, node, f"{stage}.{name}: is the one of train; leave it out")
        if name not in known:
            raise _error(file, node, f"{stage}.{name}: unknown field{_hint(name, known)}; expected one of {', '.join(known)}")
    hints = get_type_hints(config)
    values = {name: _value(file, f"{stage}.{name}", hints[name], node) for name, (_, node) in fields.items()}
    try:
        return config(**values, **filled_in)
    except ConfigError as error:
        named = [node for name, (node, _) in fields.items() if f"--{name.replace('_', '-')} " in str(error)]
        raise _error(file, (named or [key])[0], f"{stage}: {error}") from None


def _known(stage: str) -> list[str]:
    """The fields that a stage may have in the file."""
    hidden = FILLED_IN if stage in ("collect", "train") else (*FILLED_IN, "autoencoder")
    return [field.name for field in dataclasses.fields(STAGES[stage]) if field.name not in hidden]


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


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def _value(file: Path, name: str, expected: Any, node: yaml.Node) -> Any:
    """The value of one field, of exactly the type that its config class declares; the file has a list for a tuple."""
    takes_list = get_origin(expected) is tuple
    if not isinstance(node, yaml.SequenceNode if takes_list else yaml.ScalarNode):
        raise _error(file, node, f"{name}: expected {'a list: [a, b]' if takes_list else 'one value'}")
    try:
        value = _Loader("").construct_object(node, deep=True)
        value = TypeAdapter(expected).validate_python(tuple(value) if takes_list else value, strict=True)
        _require_bounded(value if takes_list else (value,))
        return value
    except ValidationError as error:
        found = node.value if isinstance(node.value, str) else value
        raise _error(file, node, f"{name}: {error.errors()[0]['msg']}, got {found!r:.200}") from None
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise _error(file, node, f"{name}: not a plain value ({str(error).splitlines()[0]:.200})") from None


_UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises where a tag does not fit its value, as in `!!int ""`."""


def _require_bounded(values: tuple[Any, ...]) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no setting")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number of more than 64 bits")


def _compose(file: Path) -> yaml.Node:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineFileError(
            f"{file}: cannot be read ({error}); give a pipeline file such as pipelines/quickstart.yaml"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise PipelineFileError(f"{file}:1: has more than {MAX_FILE_BYTES} bytes, which no pipeline needs")
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PipelineFileError(f"{file}:{line}: not valid YAML: {error.problem}; mend the line") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PipelineFileError(f"{file}:1: not valid YAML: {str(error).splitlines()[0]}; mend the file") from None
    if root is None:
        raise PipelineFileError(f"{file}:1: the file is empty; expected the stages {', '.join(STAGES)}")
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
            raise _error(file, key, f"{what}.{key.value}: stands here twice; delete one")
        fields[str(key.value)] = (key, value)
    return fields


def _error(file: Path, node: yaml.Node, message: str) -> PipelineFileError:
    return PipelineFileError(f"{file}:{node.start_mark.line + 1}: {message}")


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
