"""The card of a repository of the Hugging Face Hub: its README.md, whose head tells the Hub's search and viewer what it is.

Texts from a dataset or a file of weights stand in code spans, because they may be a stranger's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from worldmodel_v import __version__
from worldmodel_v.autoencoders.artifact import Description, Training
from worldmodel_v.autoencoders.base import readable_figures
from worldmodel_v.autoencoders.gaussian import is_vae
from worldmodel_v.origins import imports_of, originals_of
from worldmodel_v.schema import Column
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import Dataset
from worldmodel_v.storage.layout import ALIGNMENT
from worldmodel_v.training.publication import PICTURE_NAME as RECONSTRUCTIONS_NAME
from worldmodel_v.untrusted import printable, shortened
from worldmodel_v.words import counted, ordinal

CARD_NAME = "README.md"
PICTURE_NAME = "preview.png"
SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7, "10M<n<100M": 10**8}
"""The Hub's size categories -> the number of rows that each stays below."""

LARGEST = "100M<n<1B"


@dataclass(frozen=True)
class DatasetFacts:
    """What the card of a dataset is made of."""

    repo: str
    license: str | None
    dataset: Dataset[Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the card of an autoencoder is made of."""

    repo: str
    license: str | None
    described: Description
    training: Training
    heldout: Mapping[str, Any]
    """Figures of held-out frames; empty if they are not known."""


def dataset_card(facts: DatasetFacts) -> str:
    """The text of README.md."""
    dataset = facts.dataset
    kind = dataset.format.rpartition("/")[2]
    head = {
        **({"license": facts.license} if facts.license else {}),
        "task_categories": ["reinforcement-learning"],
        "tags": ["worldmodel_v", "world-models", kind, "gymnasium"],
        "size_categories": [size_category(dataset.num_rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    picture = "Frames of some episodes" if dataset.schema.frames else "The latents of an episode, over time"
    return f"""{_head(head)}
# {facts.repo.partition("/")[2]}

![{picture}]({PICTURE_NAME})

{kind.capitalize()} for a world model: {counted(dataset.num_episodes, "episode", ",")}, {dataset.num_rows:,} rows.

## Load it

```python
from worldmodel_v import open_dataset

dataset = open_dataset("hf://datasets/{facts.repo}")
```

```python
from datasets import load_dataset

rows = load_dataset("{facts.repo}", split="train")
```

The first reads the dataset's own files, `dataset.json`, `index.jsonl` and `shards/`, with their checksums (`pip install
'worldmodel_v[hub]'`). The second reads the same rows from `data/`, one for each step.

## Columns

{ALIGNMENT}

{_table(("column", "type", "role", "parts"), (_column(column) for column in dataset.schema.columns))}

In `data/`, each row also has `episode_seed` and `episode_policy`.

## Where it comes from

{_table(("what", "value"), ((name, _code(value)) for name, value in _provenance(dataset).items()))}

`dataset.json` has all settings. Made with worldmodel_v {__version__}.
"""


def model_card(facts: ModelFacts) -> str:
    """The text of README.md."""
    described = facts.described
    head = {
        **({"license": facts.license} if facts.license else {}),
        "library_name": "worldmodel_v",
        "tags": ["worldmodel_v", "world-models", "autoencoder", *(["vae"] if is_vae(described.kind) else [])],
    }
    figures = readable_figures({name: value for name, value in facts.heldout.items() if name != "num_frames"})
    picture = f"\n![Held-out frames above their reconstructions]({RECONSTRUCTIONS_NAME})\n" if figures else ""
    known = {
        "kind": described.kind,
        "parameters": f"{described.num_parameters:,}",
        "stores for each frame": ", ".join(f"{name} {text}" for name, text in described.columns.items()),
        "sha256": described.sha256,
        "steps of training": f"{facts.training.steps:,}",
        "trained on the dataset": facts.training.data_spec_hash,
        **({"which is made of": ", ".join(facts.training.selected_from)} if facts.training.selected_from else {}),
        "held out": f"every {ordinal(facts.training.holdout_every)} episode",
        **{f"{name}, held-out frames": value for name, value in figures.items()},
    }
    load = "load_vae(path)" if is_vae(described.kind) else f'load(path, autoencoder="{described.kind}")'
    home = "worldmodel_v" if is_vae(described.kind) else "worldmodel_v.autoencoders"
    return f"""{_head(head)}
# {facts.repo.partition("/")[2]}
{picture}
The autoencoder of a world model: frames in, latents out.

## Load it

```python
from huggingface_hub import snapshot_download
from {home} import {load.partition("(")[0]}

path = snapshot_download("{facts.repo}")
vae = {load}.model
```

## What it is

{_table(("what", "value"), ((name, _code(value)) for name, value in known.items()))}

`config.json` has the settings of the training and of its data. Made with worldmodel_v {__version__}.
"""


def size_category(num_rows: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for name, bound in SIZES.items() if num_rows < bound), LARGEST)


def _settings(dataset: Dataset[Any]) -> dict[str, Any]:
    """The settings of the rollouts."""
    return dataset.spec.source if isinstance(dataset.spec, LatentSpec) else dataset.spec.settings()


def _provenance(dataset: Dataset[Any]) -> dict[str, Any]:
    settings, spec = _settings(dataset), dataset.spec
    facts = {name: settings[name] for name in ("env", "env_kwargs", "policy", "seed", "gymnasium") if settings.get(name)}
    if imports := [f"{each['format']}, licence: {each['licence'] or 'not named'}" for each in imports_of(spec)]:
        facts |= {"imported from": "; ".join(dict.fromkeys(imports))}
    facts |= {"collections": len(originals_of(spec)), "spec_hash": dataset.spec_hash}
    if isinstance(spec, LatentSpec):
        facts |= {"vae_sha256": spec.vae_sha256, "precision": spec.precision}
        if spec.holdout_every is not None:
            facts |= {"held out of the VAE's training": f"every {ordinal(spec.holdout_every)} episode of a collection"}
    return facts


def _column(column: Column) -> tuple[str, ...]:
    shape = f" {list(column.row_shape)}" if column.row_shape else ""
    return _code(column.name), f"{column.dtype}{shape}", column.role, _code(", ".join(column.parts)) if column.parts else ""


def _head(content: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [names, ("---",) * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value: Any) -> str:
    """A text as it is, whatever Markdown would make of it."""
    text = printable(shortened(str(value))).replace("`", "'").replace("|", r"\|")
    return f"`{text}`"
