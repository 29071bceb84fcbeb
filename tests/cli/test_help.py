"""What a newcomer asks first: help with examples, versions, completion, and the next command."""

import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import fields, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import worldmodel_v
from tests.commands import run
from tests.docs.test_pages import CONFIGS
from tests.extending.my_tokenizer import Tokenizer
from worldmodel_v.autoencoders import AutoencoderSettings
from worldmodel_v.cli import main as shared
from worldmodel_v.cli.all import COMMANDS, module_of
from worldmodel_v.cli.all import main as all_commands
from worldmodel_v.cli.examples import EXAMPLES
from worldmodel_v.cli.following import TRAINS_FROM, after_collect, after_encode, after_eval, after_train, in_one_line
from worldmodel_v.cli.main import Output, parse
from worldmodel_v.cli.pipeline import _following, _without_changes
from worldmodel_v.cli.train import config_of
from worldmodel_v.collection import CollectConfig
from worldmodel_v.errors import ConfigError
from worldmodel_v.evaluation import EvalConfig
from worldmodel_v.training import TrainConfig

PROGRAMS = [f"wm-{name}" for name in COMMANDS]


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """The longest name of a command that the words begin with, and the words after it."""
    program = " ".join(words[:2]) if " ".join(words[:2]) in CONFIGS else words[0]
    return program, words[len(program.split()) :]


def assert_parses(words: list[str]) -> Any:
    program, options = program_of(words)
    options, _ = _without_changes(options)
    return parse(program, CONFIGS[program], args=options)[0]


def test_every_command_has_examples() -> None:
    assert EXAMPLES.keys() == CONFIGS.keys() | {"wm-export", "wm-import", "wm-pipeline"}


@pytest.mark.parametrize("line", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_the_examples_are_command_lines(line: str) -> None:
    for part in line.split(" && "):
        assert_parses(shlex.split(part))


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_help_ends_with_examples(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    program, *words = command.split()
    monkeypatch.setattr(sys, "argv", [program, *words, "--help"])
    main = module_of(program.removeprefix("wm-")).main
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    lines = capsys.readouterr().out.splitlines()
    examples = lines[lines.index("examples:") + 1 :]
    assert examples == [f"  {line}" for line in EXAMPLES[command]]
    assert any("--version" in line for line in lines)
    assert not [line for line in lines if len(line) > 80 and not line.startswith("usage:") and line not in examples]


def helps(config: type) -> dict[str, str]:
    """The docstring of each option, as it stands in the source."""
    homes = [home for home in config.__mro__ if hasattr(home, "__dataclass_fields__")]
    source = "".join(inspect.getsource(home) for home in homes)
    return dict(re.findall(r'^    (\w+): [^\n]+\n    """(.*?)"""', source, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("program", sorted(CONFIGS.keys() - {"wm-train"}))
def test_an_option_has_one_line_of_help(program: str) -> None:
    longer = {name for name, text in helps(CONFIGS[program]).items() if "\n" in text}
    assert longer <= {"policy"}


@pytest.mark.parametrize("program", CONFIGS)
def test_no_option_begins_a_line_within_a_paragraph_where_tyro_would_break_it(program: str) -> None:
    assert not re.search(r"\S\n +--", CONFIGS[program].__doc__)


def test_a_flag_that_turns_something_off_says_what_it_does_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert helps(TrainConfig)["resume"].startswith("Start from step 0 and replace")
    with pytest.raises(SystemExit):
        parse("wm-train", TrainConfig, args=["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--no-resume Start from step 0 and replace" in text


@pytest.mark.parametrize("program", CONFIGS)
def test_a_switch_and_an_empty_value_show_no_default(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(program, CONFIGS[program], args=["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--quiet Print only the result and errors. --log-format" in text
    assert " ".join(inspect.getdoc(CONFIGS[program]).split())[:60] in text
    assert not re.search(r"\(default: (True|False|None|'\{\}'|'')?\)", text)
    number = {field.name for field in fields(CONFIGS[program]) if type(field.default) is int}
    assert not number or "(default: " in text


@pytest.mark.parametrize("program", CONFIGS)
def test_what_an_option_takes_is_said_plainly(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(program, CONFIGS[program], args=["--help"])
    text = capsys.readouterr().out
    assert "{None}" not in text
    assert " [STR [" not in text
    assert "STR|PATH" not in text
    assert "URL [PATH|URL" not in text


def test_none_can_be_given_where_a_value_may_be_none() -> None:
    config, _ = parse("wm-collect", CollectConfig, args=["--out", "x", "--max-steps", "None", "--frame-size", "96x128"])
    assert (config.max_steps, config.frame_size) == (None, "96x128")
    config, _ = parse("wm-collect", CollectConfig, args=["--out", "x", "--max-steps", "7", "--wrap", "a:B", "c:D"])
    assert (config.max_steps, config.frame_size, config.wrap) == (7, 64, ("a:B", "c:D"))
    words = ["--data", "a", "b", "--out", "x", "--autoencoder", "fsq", "--levels", "8", "5"]
    config, _ = parse("wm-train", config_of, args=words)
    assert (list(map(str, config.data)), config.levels) == (["a", "b"], (8, 5))


def test_what_is_parsed_is_of_the_class_itself(tmp_path: Path) -> None:
    config, output = parse("wm-encode", CONFIGS["wm-encode"], args=["--data", "a", "--vae", "b", "--out", "c"])
    assert (type(config), type(output)) == (CONFIGS["wm-encode"], Output)


def test_the_help_lists_the_settings_of_the_autoencoder_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("wm-train", config_of, args=["--autoencoder", "tests.extending.my_tokenizer:Tokenizer", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--levels INT Values of each of the three digits of a token. (default: 4)" in text
    assert "--steps INT" in text
    assert "--latent-dim" not in text


def test_no_setting_of_an_autoencoder_has_the_name_of_an_option_of_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = make_dataclass("Odd", [("quiet", bool, False)], bases=(AutoencoderSettings,), frozen=True, kw_only=True)
    monkeypatch.setattr(Tokenizer, "settings_class", odd)
    with pytest.raises(ConfigError, match="its setting quiet has the name of another one of wm-train; rename it"):
        config_of(["--autoencoder=tests.extending.my_tokenizer:Tokenizer"])


@pytest.mark.parametrize("words", [*PROGRAMS, "wm-pipeline run", "wm-export npz"])
def test_every_command_says_its_version(words: str) -> None:
    program, *more = words.split()
    assert run(program, *more, "--version") == (f"{program} {worldmodel_v.__version__}\n", "")


def test_the_package_runs_its_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["__main__.py", *words])
        code: Any = 0
        try:
            all_commands()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    code, listed, _ = said()
    assert code == 0
    assert [line.split()[0] for line in listed.splitlines()[2:]] == list(COMMANDS)
    assert said("--help") == (0, listed, "")
    assert said("--version") == (0, f"worldmodel_v {worldmodel_v.__version__}\n", "")
    code, _, errors = said("colect")
    assert (code, errors.partition(";")[0]) == (2, "python -m worldmodel_v: unknown command 'colect'")
    code, _, errors = said("inspect", "absent")
    assert (code, errors.partition(";")[0]) == (2, "wm-inspect: absent: no such directory")


def test_python_finds_it_by_the_packages_name() -> None:
    command = [sys.executable, "-m", "worldmodel_v", "inspect", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == f"wm-inspect {worldmodel_v.__version__}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_completes_itself_in_bash(program: str, tmp_path: Path) -> None:
    output, _ = run(program, "--tyro-print-completion", "bash")
    subprocess.run(["bash", "-n"], input=output, text=True, check=True)
    assert program in output
    assert "--out" in output or program == "wm-inspect"


# The next command


def following(commands: Any, *about: SimpleNamespace) -> list[str]:
    return [in_one_line(words) for words in commands(*about)]


def test_each_stage_suggests_a_whole_command() -> None:
    folder = Path("my runs")
    collected = SimpleNamespace(out=folder / "rollouts")
    trained = SimpleNamespace(out=folder / "vae", data=(folder / "rollouts",), autoencoder="gaussian")
    evaluated = SimpleNamespace(out=folder / "eval", vae=folder / "vae", data=(folder / "rollouts",), autoencoder="mine:Own")
    encoded = SimpleNamespace(out=Path("latents"), vae=folder / "vae", data=("https://host/r",), autoencoder="gaussian")
    train = "wm-train --data 'my runs/rollouts' --out 'my runs/vae'"
    both = "--data 'my runs/rollouts' --vae 'my runs/vae'"
    encode = f"wm-encode {both} --out 'my runs/latents'"
    suggested = {
        train: following(after_collect, collected, SimpleNamespace(episodes=10)),
        f"{train} --holdout-every 9": following(after_collect, collected, SimpleNamespace(episodes=9)),
        f"wm-eval {both} --out 'my runs/eval'\n{encode}": following(after_train, trained, trained),
        f"wm-encode {both} --autoencoder mine:Own --out 'my runs/latents'\n"
        f"wm-view {both} --autoencoder mine:Own --out 'my runs/view.html'": following(after_eval, evaluated, evaluated),
        "wm-inspect latents --verify --data https://host/r --vae 'my runs/vae'": following(after_encode, encoded, encoded),
    }
    for lines, found in suggested.items():
        assert found == lines.splitlines()
        for line in found:
            assert_parses(shlex.split(line))
    assert following(after_collect, collected, SimpleNamespace(episodes=1)) == []
    unnamed = EvalConfig(vae=folder / "vae", data=folder / "rollouts", out=folder / "eval")
    assert following(after_eval, unnamed, unnamed)[0] == encode
    other = following(after_collect, SimpleNamespace(out=Path("pong")), SimpleNamespace(episodes=99))
    assert other == ["wm-train --data pong --out pong-vae"]
    assert TrainConfig.holdout_every == TRAINS_FROM


def test_a_new_pipeline_file_is_to_be_run_next() -> None:
    init = CONFIGS["wm-pipeline init"](file=Path("my file.yaml"))
    (line,) = following(_following, init, {"file": Path("my file.yaml")})
    assert line == "wm-pipeline run 'my file.yaml' --out 'runs/my file'"
    assert_parses(shlex.split(line))


@pytest.mark.parametrize(
    ("at_a_terminal", "words", "suggests"),
    [
        (True, "", True),
        (False, "", False),
        (True, "--quiet", False),
        (True, "--json", False),
        (True, "--log-format json", False),
    ],
)
def test_it_is_suggested_to_people_alone(
    at_a_terminal: bool,
    words: str,
    suggests: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: at_a_terminal)
    config = CONFIGS["wm-pipeline init"]
    work = lambda config, progress: config.work(progress, None, [])  # noqa: E731
    shared.run("wm-pipeline init", config, work, args=words.split(), following=_following)
    assert ("next: wm-pipeline run quickstart.yaml --out runs/quickstart\n" in capsys.readouterr().err) == suggests
