"""Which collections made the episodes of a dataset.

A selection, and latents of one, name the collections that made their episodes, and for each episode its number there. Every
other dataset of rollouts is a collection itself, and latents are of one.
"""

from typing import Any

from worldmodel_v.spec import LatentSpec, RolloutSpec

Original = dict[str, Any]
"""The `spec_hash` and `settings` of a collection."""


def is_selected(spec: RolloutSpec | LatentSpec) -> bool:
    """Whether its episodes, or those that the latents were made of, were selected from other datasets."""
    return bool(selection_of(spec))


def selection_of(spec: RolloutSpec | LatentSpec) -> dict[str, Any]:
    """The record of the selection that its episodes, or those that the latents were made of, come from; empty without one."""
    if spec.selection or isinstance(spec, RolloutSpec):
        return spec.selection
    selection: dict[str, Any] = spec.source.get("selection", {})
    return selection


def originals_of(spec: RolloutSpec | LatentSpec) -> list[Original]:
    """The collections; an episode's `Origin` points into this list."""
    if is_selected(spec):
        return list(selection_of(spec)["origins"])
    if isinstance(spec, LatentSpec):
        return [{"spec_hash": spec.source_spec_hash, "settings": spec.source}]
    return [{"spec_hash": spec.hash, "settings": spec.settings()}]


def imports_of(spec: RolloutSpec | LatentSpec) -> list[dict[str, Any]]:
    """What was recorded of the import (`RolloutSpec.imported`), of each collection that was imported."""
    return [imported for original in originals_of(spec) if (imported := original["settings"].get("imported"))]


def collections_of(spec: RolloutSpec | LatentSpec) -> tuple[str, ...]:
    """The `spec_hash` of each collection."""
    return tuple(original["spec_hash"] for original in originals_of(spec))
