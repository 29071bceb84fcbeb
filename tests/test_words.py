"""A count agrees with its number."""

from pathlib import Path

from tests.selection.made import selected, write_rollouts
from worldmodel_v.inspection import require_intact
from worldmodel_v.storage import open_dataset
from worldmodel_v.words import are, counted, ordinal, sized


def test_a_noun_and_a_verb_agree_with_their_number() -> None:
    assert [counted(number, "shard") for number in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
    assert counted(4000, "row", ",") == "4,000 rows"
    assert [sized(number) for number in (8704, 4_512_345, 1.2e9)] == ["8.7 kB", "4.5 MB", "1,200.0 MB"]
    assert " ".join(map(ordinal, (1, 2, 3, 4, 11, 12, 13, 22, 113))) == "1st 2nd 3rd 4th 11th 12th 13th 22nd 113th"
    assert [are(number) for number in (0, 1, 2)] == ["are", "is", "are"]


def test_a_dataset_of_one_says_so(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "one", 1)
    assert require_intact(data) == "1 shard, 1 episode, 5 rows: every byte as indexed"
    assert repr(open_dataset(data)).endswith(": rollouts, 1 episode, 5 rows)")
    assert selected(tmp_path / "out", data).shards == 1
