"""Facts for people: rounded, in few lines; nothing of it changes what `--json` gives."""

from pathlib import Path
from typing import Any

import pytest

from worldmodel_v.cli import terminal
from worldmodel_v.cli.overview import print_overview
from worldmodel_v.cli.tables import in_words, print_evaluation, print_facts, rounded
from worldmodel_v.evaluation.stage import EvaluationReport, Summary
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE

RUN: dict[str, Any] = {
    "state": "complete",
    "process": "7 on here",
    "stage": "collect",
    "done": 40,
    "wanted": 40,
    "started": "2026-01-02T03:04:05+00:00",
    "latest": "2026-01-02T03:14:05+00:00",
    "per_second": 0.06789,
    "temporaries": [],
}
POLICY = {
    **{"policy": "random-start(driver(speed=80, curve_speed=60, noise=0.3))", "episodes": 8, "tiles_visited": 0.4321},
    **{"full_laps": 0.125, "off_road": 0.2, "spinning": 0.01, "standing": 0.0},
    "frames_by_speed": {"0-1": 0.1, "1-10": 0.2, "over 60": 0.7},
}


def test_numbers_are_rounded_for_people() -> None:
    numbers = [0.7071067811865476, 20.921108349581477, -8091.1455078125, 123456.7, 1e-05, 0.0, 3, True, "x" * 64]
    assert list(map(rounded, numbers)) == ["0.7071", "20.92", "-8091", "123457", "1e-05", "0", "3", "True", "x" * 64]
    assert rounded("0123456789abcdef" * 4) == "0123456789ab…"
    assert in_words({"a": 0.12345, "b": None, "c": [], "f": "", "d": {"e": (1.0, 2)}}) == "a 0.1235, d e 1, 2"


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(terminal, "PIPED_WIDTH", 80)
    print_overview(facts)
    return capsys.readouterr().out.splitlines()


def test_no_line_of_a_table_is_filled_with_spaces_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"a": "x" * 300, "b": 1})
    assert capsys.readouterr().out.splitlines() == ["a  " + "x" * 235, "   " + "x" * 65, "b  1"]


def test_policies_are_the_rows_of_one_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"episodes": 40, "rows": 12345, "shards": 20, "bytes": 16_000_000, "bytes_per_row": 1296.1}
    facts = {"kind": "rollouts", "path": "r", **sizes, "run": RUN, "driving": [POLICY, POLICY | {"policy": "brownian"}]}
    lines = shown(capsys, monkeypatch, facts)
    assert max(map(len, lines)) <= 80
    assert lines[1].split(maxsplit=1)[1] == "40 episodes, 12,345 frames, 20 shards of 16.0 MB"
    heading = next(number for number, line in enumerate(lines) if line.startswith("policy "))
    assert "usual speed" in lines[heading - 1]
    assert "(units/s)" in lines[heading]
    assert lines[-1].split() == ["brownian", "8", "43%", "12%", "20%", "1%", "0%", "over", "60"]
    assert len([line for line in lines if "43%" in line]) == 2


def test_a_limit_that_is_none_is_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"kind": "rollouts", "path": "r", "settings": {"seed": 0, "max_steps": MAX_ROWS_PER_EPISODE - 1}}
    assert "max_steps" not in "".join(shown(capsys, monkeypatch, facts))
    facts["settings"]["max_steps"] = 7  # type: ignore[index]
    assert "max_steps 7" in "".join(shown(capsys, monkeypatch, facts))


def test_started_is_the_latest_runs_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for run, words in (
        (RUN, "started 2026-01-02 03:04:05 UTC, latest 2026-01-02 03:14:05 UTC, 0.06789 episodes/s; process 7 on here"),
        (RUN | {"per_second": None}, "started 2026-01-02 03:04:05 UTC, nothing new since (2026-01-02 03:14:05 UTC); process 7"),
        (RUN | {"per_second": None, "latest": None}, "started 2026-01-02 03:04:05 UTC; process 7 on here"),
    ):
        text = " ".join(" ".join(shown(capsys, monkeypatch, {"kind": "rollouts", "path": "r", "run": run})).split())
        assert f"latest run {words}" in text
        assert "state complete: 40 of 40 episodes" in text


def test_failed_episodes_are_listed_up_to_five(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [{"episode": number, "seed": 1, "shard": "0", "tries": 4, "reason": "it fell"} for number in range(9)]
    lines = shown(capsys, monkeypatch, {"kind": "rollouts", "path": "r", "set_aside": failed})
    assert [line for line in lines if "it fell" in line][4].strip() == "episode 4 (seed 1, 4 tries): it fell"
    assert lines[-1].strip() == "and 4 more, which --json lists"
    assert len([line for line in lines if "it fell" in line]) == 5


def test_the_facts_of_a_list_are_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"jobs": [{"job": "a", "status": "RUNNING"}, {"job": "b", "status": None}], "none": {}})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        *(["jobs"], ["job", "a"], ["status", "RUNNING"], ["job", "b"], ["status", "none"])
    ]


def test_what_was_evaluated_is_one_line_above_a_table_that_is_narrower(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(num_frames=402, num_episodes=2, psnr_db=23.83, ssim=0.787, without_zoom=None, squared_error=122.1)
    print_evaluation(
        EvaluationReport(out=Path("e"), page=Path("e/report.html"), vae_sha256="", did_nothing=False, summary=summary)
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "The autoencoder on 402 frames of 2 held-out episodes"
    assert len(lines[2]) < len(lines[1])
