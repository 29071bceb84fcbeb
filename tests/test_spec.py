"""The settings of a dataset: their hash is the same everywhere, and differences are named."""

import dataclasses
import json

import pytest

from tests.builders import (
    ROLLOUT_SETTINGS,
    latent_spec,
    made_latent_schema,
    made_rollout_schema,
    rollout_spec,
    run_python,
)
from worldmodel_v.schema import Schema
from worldmodel_v.spec import FORMAT_VERSION, SPEC_CLASSES, LatentSpec, RolloutSpec, differences, schema_differences
from worldmodel_v.untrusted import canonical_json

ROLLOUT_HASH = "0c2000253b09f20216bd87c3eb4ed0b32e62f4ad94053f16b42a9fa8e5e32423"
LATENT_HASH = "b459af086e1da9da42cbd054ca2771b3fe3a3aede103549ff90c02bf9bdf091d"


SELECTION = {"datasets": [], "origins": [{"spec_hash": "0", "settings": {}}], "differ": ["seed"]}


IMPORTED = {
    **{"format": "npz", "options": {"frames": "obs"}, "licence": None, "lacks": ["seed"]},
    **{"num_files": 1, "files_sha256": "c" * 64, "files": {"0.npz": "d" * 64}},
}


def test_the_hash_of_known_settings_never_changes() -> None:
    """A change here makes every dataset on disk unreadable: it needs a new format_version."""
    assert FORMAT_VERSION == 1
    assert rollout_spec().hash == ROLLOUT_HASH
    assert latent_spec().hash == LATENT_HASH


def test_the_hash_is_the_same_in_another_process() -> None:
    assert run_python("from tests.builders import rollout_spec; print(rollout_spec().hash)") == ROLLOUT_HASH


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    reordered = dict(reversed(ROLLOUT_SETTINGS.items()))
    assert RolloutSpec(schema=made_rollout_schema(), **reordered).hash == rollout_spec().hash
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert rollout_spec(env_kwargs=one).hash == rollout_spec(env_kwargs=other).hash


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RolloutSpec)])
def test_every_setting_of_rollouts_changes_the_hash(field: str) -> None:
    nested = {
        **{"env_kwargs": {"length": 4}, "policy_weights": {"w.pt": "0"}, "env_source": {"ale-py": "0.10"}},
        **{"schema": made_rollout_schema(num_factors=1), "record": ("info.speed",), "selection": SELECTION},
        "imported": IMPORTED,
    }
    other = nested.get(field, 99 if isinstance(ROLLOUT_SETTINGS.get(field), int) else "other")
    assert rollout_spec(**{field: other}).hash != rollout_spec().hash


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LatentSpec)])
def test_every_setting_of_latents_changes_the_hash(field: str) -> None:
    others = {"schema": made_latent_schema(latent_dim=9), "source": {}, "selection": SELECTION}
    other = (others | {"holdout_every": 3, "trained_on": ("other",)}).get(field, "other")
    assert latent_spec(**{field: other}).hash != latent_spec().hash


@pytest.mark.parametrize("change", [{"origins": [{}]}, {"origins": {}}, {"differ": [1]}, {"datasets": 3}, {"datasets": [3]}])
def test_a_selection_that_is_no_record_of_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"origins|differ|datasets"):
        rollout_spec(selection=SELECTION | change)
    with pytest.raises(ValueError, match="selection: expected an object with datasets, differ, origins"):
        rollout_spec(selection={"origins": []})


@pytest.mark.parametrize("change", [{"files": {"a": 1}}, {"lacks": [1]}, {"licence": 3}, {"num_files": "1"}, {"format": None}])
def test_what_is_no_record_of_an_import_is_refused(change: dict[str, object]) -> None:
    assert rollout_spec(imported=IMPORTED).imported == IMPORTED
    with pytest.raises(ValueError, match=f"{min(change)}: expected"):
        rollout_spec(imported=IMPORTED | change)
    with pytest.raises(ValueError, match="imported: expected an object with files, files_sha256, format, lacks"):
        latent_spec(source={**ROLLOUT_SETTINGS, "imported": {"format": "npz"}})


def test_the_content_of_dataset_json_gives_the_same_spec_back() -> None:
    for spec in (rollout_spec(), latent_spec()):
        content = json.loads(json.dumps(spec.to_json()))
        assert set(content) == {"format", "format_version", "spec", "schema", "spec_hash"}
        again = SPEC_CLASSES[content["format"]](schema=Schema.from_json(content["schema"]), **content["spec"])
        assert (again.settings(), again.schema, again.hash) == (spec.settings(), spec.schema, spec.hash)
        assert content["spec_hash"] == spec.hash


def test_formats_are_named_as_in_the_contract() -> None:
    assert set(SPEC_CLASSES) == {"worldmodel_v/rollouts", "worldmodel_v/latents"}


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "ä"}) == '{"a":"\\u00e4","b":[1,2.5,null]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": value})


def test_differences_name_each_field_with_both_values_in_order() -> None:
    recorded, asked = {"seed": 1, "env": "a", "same": 0, "old": 5}, {"seed": 2, "env": "b", "same": 0, "new": None}
    assert differences(recorded, asked) == [
        "env is 'a' there, 'b' asked",
        "new is 'not set' there, None asked",
        "old is 5 there, 'not set' asked",
        "seed is 1 there, 2 asked",
    ]


def test_equal_settings_have_no_differences() -> None:
    assert differences(dict(ROLLOUT_SETTINGS), dict(reversed(ROLLOUT_SETTINGS.items()))) == []


def test_columns_that_differ_are_named_by_their_parts() -> None:
    one, other = made_rollout_schema(8, 2, 2), made_rollout_schema(16, 0, 0)
    assert [each for each in schema_differences(one, other, ("in one", "here")) if "space" not in each] == [
        "column state is 'float32 [2]' in one, 'not set' here",
        "the dtype of column action is 'float32' in one, 'int64' here",
        "the fill of column action is 'nan' in one, -1 here",
        "the row_shape of column action is (2,) in one, () here",
        "the row_shape of column pixels is (8, 8, 3) in one, (16, 16, 3) here",
    ]
