"""What datasets must agree in to become one, and the settings of that one.

They agree in what a row means: schema, frames, how long a step is; latents in their autoencoder too. All else may differ:
policy, seed, the environment and its arguments. Of settings that differ, `dataset.json` has those of the first collection, and
says which they are (`selection.differ`); environment and policy are named together. The settings that made each episode are in
the list of original datasets (`selection.origins`), which each episode points into. Originals are always collections: of
latents, those of the rollouts that they were encoded from. So selecting from selections, or encoding between, keeps them.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.origins import Original, originals_of, selection_of
from worldmodel_v.selection.episodes import Source
from worldmodel_v.spec import LatentSpec, RolloutSpec, differences, read_settings, schema_differences

OF_ROWS = ("frames", "crop", "frame_height", "frame_width", "resize", "fit", "frame_skip", "frame_skip_pool")
"""The settings of rollouts that say what a row means."""

OF_LATENTS = ("vae_sha256", "autoencoder_sha256", "dtype", "precision")

NAMED_TOGETHER = ("env", "policy")


def require_agreement(datasets: Sequence[Source], remedy: str = "select from them apart") -> None:
    """Raise DatasetNotUsable, which names the fields, if a dataset does not go together with the first one."""
    first = datasets[0]
    for dataset in datasets[1:]:
        if dataset.format != first.format:
            kinds = [each.format.rpartition("/")[2] for each in (first, dataset)]
            differing = [f"{first.path} holds {kinds[0]}, this one {kinds[1]}"]
        else:
            words = (f"in {first.path}", "here")
            differing = differences(_of_rows(first.spec), _of_rows(dataset.spec), words)
            differing = differing or schema_differences(first.schema, dataset.schema, words)
        if differing:
            raise DatasetNotUsable("; ".join(differing), where=dataset.path, remedy=remedy)


def merge_originals(datasets: Sequence[Source]) -> tuple[list[Original], list[list[int]]]:
    """The original datasets of all, each once, and for each dataset the numbers of its own in that list."""
    merged: dict[str, tuple[int, Original]] = {}
    numbers: list[list[int]] = []
    for dataset in datasets:
        own = originals_of(dataset.spec)
        for original in own:
            merged.setdefault(original["spec_hash"], (len(merged), original))
        numbers.append([merged[original["spec_hash"]][0] for original in own])
    return [original for _, original in merged.values()], numbers


def merged_spec(
    datasets: Sequence[Source], used: Sequence[Source], originals: Sequence[Original], choice: dict[str, Any]
) -> RolloutSpec | LatentSpec:
    """The spec of the new dataset; `choice` is what was asked for, as it is recorded.

    `used` are those of the datasets that episodes are chosen of, and `originals` the collections that made these. Raises
    DatasetNotUsable if the record of a collection in a dataset is none.
    """
    spec = used[0].spec
    differ = _differing([original["settings"] for original in originals])
    selection: dict[str, Any] = {**choice, "datasets": [_record(dataset) for dataset in datasets], "origins": [*originals]}
    if isinstance(spec, RolloutSpec):
        settings = _settings(spec.settings(), {*differ, *_differ(spec)}, originals)
        try:
            return read_settings(RolloutSpec, settings | {"selection": selection | {"differ": differ}}, spec.schema)
        except (ValueError, TypeError, KeyError) as error:
            what = f"dataset.json names a collection with settings that are none ({error})"
            raise DatasetNotUsable(what, where=used[0].path, remedy="restore it from a copy") from None
    hashes = {dataset.spec.source_spec_hash for dataset in used if isinstance(dataset.spec, LatentSpec)}
    varied = len(hashes) > 1 or any("source_spec_hash" in _differ(dataset.spec) for dataset in used)
    if varied and len(originals) > 1:
        differ.append("source_spec_hash")
    return dataclasses.replace(
        spec,
        source=_settings(spec.source, {*differ, *_differ(spec)}, originals),
        source_spec_hash=originals[0]["spec_hash"] if varied else spec.source_spec_hash,
        selection=selection | {"differ": differ},
    )


def _settings(settings: dict[str, Any], differ: set[str], originals: Sequence[Original]) -> dict[str, Any]:
    """The settings of rollouts, without their selection; those that differ are the first collection's."""
    first = originals[0]["settings"]
    left = {name: value for name, value in settings.items() if name != "selection" and name not in differ}
    left |= {name: value for name, value in first.items() if name in differ and name != "selection"}
    for name in NAMED_TOGETHER:
        if name in first:
            left[name] = " + ".join(dict.fromkeys(str(original["settings"].get(name)) for original in originals))
    return left


def index_sha256(dataset: Source) -> str:
    """The SHA-256 of the lines of the index, in the order of the shards' numbers, in which they may not stand in the file."""
    return hashlib.sha256("".join(f"{entry.to_line()}\n" for entry in dataset.entries).encode()).hexdigest()


def _of_rows(spec: RolloutSpec | LatentSpec) -> dict[str, Any]:
    settings = spec.settings()
    rollouts = settings.get("source", settings)
    found = {name: settings[name] for name in OF_LATENTS if name in settings}
    return found | {name: rollouts[name] for name in OF_ROWS if name in rollouts}


def _differ(spec: RolloutSpec | LatentSpec) -> list[str]:
    differ: list[str] = selection_of(spec).get("differ", [])
    return differ


def _record(dataset: Source) -> dict[str, Any]:
    """A dataset that was selected from, and how it was selected itself."""
    record = {"spec_hash": dataset.spec_hash, "index_sha256": index_sha256(dataset), "episodes": dataset.num_episodes}
    before = {name: value for name, value in selection_of(dataset.spec).items() if name != "origins"}
    return record | ({"selection": before} if before else {})


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    names = {name for each in settings for name in each}
    return sorted(name for name in names if any(each.get(name) != settings[0].get(name) for each in settings))
