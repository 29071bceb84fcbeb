"""Environments and policies that change the process they run in: it is put back, and what they print goes elsewhere."""

import ctypes
import decimal
import gc
import io
import json
import locale
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.builders import digests
from tests.conftest import stamp_config
from tests.test_interrupts import Dying
from worldmodel_v.collection import collect, collect_source
from worldmodel_v.collection.config import CollectionConfig
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.interrupts import interruptible
from worldmodel_v.process import output_to_stderr, process_kept
from worldmodel_v.sources import EpisodeSource, Recorder
from worldmodel_v.storage import open_dataset

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHANGED_SIGNALS = (*SIGNALS, signal.SIGALRM)


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def state_of_the_process() -> dict[str, Any]:
    return {
        "directory": Path.cwd(),
        "variable": os.environ.get("RUDE"),
        "path": os.environ["PATH"],
        "umask": umask(),
        "streams": (sys.stdin, sys.stderr),
        "locale": locale.setlocale(locale.LC_ALL),
        "filters": list(warnings.filters),
        "floating point": np.geterr(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "gradients": torch.is_grad_enabled(),
        "matrix products": torch.get_float32_matmul_precision(),
        "determinism": torch.get_deterministic_debug_mode(),
        "small numbers": float(np.finfo(np.float32).smallest_subnormal * np.float32(1)),
        "handlers": [signal.getsignal(number) for number in CHANGED_SIGNALS],
        "timer": any(signal.getitimer(signal.ITIMER_REAL)),
        "logging": ([*logging.getLogger().handlers], logging.getLogger().level, logging.getLogger().manager.disable),
        "recursion": sys.getrecursionlimit(),
        "tracers": (sys.gettrace(), sys.getprofile()),
        "turns": sys.getswitchinterval(),
        "decimals": decimal.getcontext().prec,
        "modules": [*sys.path],
        "garbage": gc.isenabled(),
        "digits": np.get_printoptions()["precision"],
    }


def change_the_process(folder: str) -> None:
    os.chdir(folder)
    os.environ["RUDE"] = "yes"
    os.environ["PATH"] += ":/rude"
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    warnings.simplefilter("error")
    np.seterr(all="raise")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.set_deterministic_debug_mode("warn")
    torch.set_flush_denormal(True)
    os.umask(0o777)
    sys.stdin = sys.stdout = sys.stderr = io.StringIO()
    for number in CHANGED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.alarm(3600)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(logging.DEBUG)
    logging.disable(logging.DEBUG)
    sys.setrecursionlimit(sys.getrecursionlimit() + 1)
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)
    sys.setswitchinterval(1)
    decimal.getcontext().prec = 5
    sys.path = [folder, *sys.path]
    gc.disable()
    np.set_printoptions(precision=1)


class Rude(StampEnv):
    """The toy world, and notes of how each of its episodes found the process."""

    found: list[dict[str, Any]] = []

    def __init__(self, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._folder = folder
        self.found.append(state_of_the_process())

    def reset(self, **how: Any) -> Any:
        change_the_process(self._folder)
        return super().reset(**how)

    def step(self, action: Any) -> Any:
        observation, reward, *end = super().step(action)
        return observation, 1e-300 if reward else reward, *end  # which float32 does not hold


class Deaf(StampEnv):
    """Hears no signal, as far as it can help it, and sends itself one in its third step."""

    def __init__(self, how: str, number: int) -> None:
        super().__init__()
        self._how, self._number, self._t = how, number, 0
        if how == "built":
            signal.signal(number, signal.SIG_IGN)

    def reset(self, **how: Any) -> Any:
        if self._how == "reset":
            signal.signal(self._number, signal.SIG_IGN)
        elif self._how == "native":
            ctypes.CDLL(None).signal(self._number, ctypes.c_void_p(1))  # SIG_IGN
        return super().reset(**how)

    def step(self, action: Any) -> Any:
        self._t += 1
        if self._t == 3:
            os.kill(os.getpid(), self._number)
        return super().step(action)


gymnasium.register("tests/Rude-v0", entry_point=Rude)
gymnasium.register("tests/Deaf-v0", entry_point=Deaf)


def test_every_episode_finds_the_process_as_it_was_and_so_does_the_caller(tmp_path: Path) -> None:
    before = state_of_the_process()
    Rude.found.clear()
    with process_kept():
        change_the_process("/")
        assert all(changed != before[name] for name, changed in state_of_the_process().items() if name != "locale")
    collect(stamp_config(tmp_path / "out", env="tests/Rude-v0", env_kwargs=json.dumps({"folder": "/"}), episodes=3))
    assert state_of_the_process() == before
    assert len(Rude.found) > 3
    for found in Rude.found:
        assert found == before


def test_what_importing_a_module_changes_lasts_as_long_as_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_world.py").write_text(
        "import os, signal, numpy, gymnasium\n"
        "from worldmodel_v.envs.stamp import StampEnv\n"
        "os.chdir('/')\n"
        "numpy.seterr(all='raise')\n"
        "os.environ['RUDE'] = 'imported'\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "class World(StampEnv):\n"
        "    def reset(self, **how):\n"
        "        assert os.environ['RUDE'] == 'imported' and numpy.geterr()['over'] == 'raise'\n"
        "        assert os.getcwd() != '/' and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN\n"
        "        os.environ['RUDE'] = 'played'\n"
        "        return super().reset(**how)\n"
        "gymnasium.register('tests/Imported-v0', entry_point=World)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = state_of_the_process()
    collect(stamp_config(Path("out"), env="imported_world:tests/Imported-v0", episodes=3))
    assert state_of_the_process() == before
    assert open_dataset(tmp_path / "out").num_episodes == 3


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("how", ["built", "reset", "native"])
def test_signals_interrupt_the_run_whatever_handlers_an_environment_sets(
    how: str, number: signal.Signals, tmp_path: Path
) -> None:
    settings = {"env": "tests/Deaf-v0", "env_kwargs": json.dumps({"how": how, "number": int(number)})}
    with pytest.raises(KeyboardInterrupt), interruptible():
        collect(stamp_config(tmp_path / "out", **settings))


class Losing(StampEnv):
    """Ctrl-C comes in a destructor, which swallows it, and then nothing happens for a while."""

    def step(self, action: Any) -> Any:
        Dying(signal.SIGINT)
        time.sleep(9)
        return super().step(action)


gymnasium.register("tests/Losing-v0", entry_point=Losing)


def test_an_interruption_that_a_destructor_swallows_ends_a_call_from_python(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        collect(stamp_config(tmp_path / "out", env="tests/Losing-v0", episodes=1, max_steps=1))


class RudeSource(EpisodeSource):
    """Two frames, from another folder."""

    name = "rude"
    action_space = gymnasium.spaces.Discrete(2)

    def episode(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        change_the_process("/")
        sys.stdout.write("here I am\n")
        pixels = rng.integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
        return {"pixels": pixels, "action": [0], "reward": [1.0], "terminated": True}


def test_a_source_of_ones_own_is_put_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of_the_process()
    collect_source(RudeSource(), CollectionConfig(out=Path("out"), episodes=3, workers=0))
    assert state_of_the_process() == before
    assert open_dataset(tmp_path / "out").num_episodes == 3
    assert capfd.readouterr().out == ""


def test_a_recorder_writes_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with process_kept(), Recorder(Rude(folder="/"), "out") as env:
        env.reset()
        env.step(env.action_space.sample())
    assert open_dataset(tmp_path / "out").num_episodes == 1


NOISY = """
import atexit, ctypes, os, subprocess
import gymnasium
from worldmodel_v.envs.stamp import StampEnv

def noise(where):
    os.makedirs("sub", exist_ok=True)
    os.chdir("sub")
    print("print", where)
    os.write(1, f"write {where}\\n".encode())
    ctypes.CDLL(None).puts(f"puts {where}".encode())
    subprocess.run(["echo", "echo", where], check=True)

noise("import")
atexit.register(print, "print exit")

class Noisy(StampEnv):
    def __init__(self):
        noise("build")
        super().__init__()
    def reset(self, **how):
        noise("reset")
        return super().reset(**how)
    def step(self, action):
        noise("step")
        return super().step(action)
    def close(self):
        noise("close")

class Still:
    def __init__(self, env):
        noise("policy")
    def reset(self, rng):
        noise("policy reset")
    def act(self, frame):
        return [0.0, 0.0]

gymnasium.register("Noisy-v0", entry_point=Noisy)
"""


def test_a_command_prints_its_result_alone_into_the_directory_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    command = "wm-collect --out out --env noisy:Noisy-v0 --policy noisy:Still --episodes 2 --max-steps 2 --workers 0 --json"
    program = [sys.executable, str(Path(sys.executable).with_name("wm-collect")), *command.split()[1:]]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 2
    for how in ("print", "write", "puts", "echo"):
        for where in ("import", "build", "reset", "step", "close", "policy", "policy reset"):
            assert f"{how} {where}\n" in done.stderr
    assert "print exit\n" in done.stderr
    assert open_dataset(tmp_path / "out").num_episodes == 2


def test_weights_are_those_of_the_directory_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the environment has gone elsewhere before the policy is built."""
    torch.save({"factor": torch.ones(2)}, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Rude, "__init__", lambda self, folder: (StampEnv.__init__(self), os.chdir(folder))[0])
    monkeypatch.setattr(Rude, "reset", StampEnv.reset)
    line = "checkpoint:tests.policies.test_drivers:Reddest:w.pt"
    collect(stamp_config(Path("out"), env="tests/Rude-v0", env_kwargs='{"folder": "/"}', policy=line, episodes=1))
    collect(stamp_config(tmp_path / "plain", env="worldmodel_v/Stamp-v0", policy=line, episodes=1))
    first, second = (open_dataset(tmp_path / name).episode(0) for name in ("out", "plain"))
    np.testing.assert_array_equal(first.action, second.action)


def test_output_comes_back_and_what_was_printed_before_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"before ")
    with output_to_stderr():
        os.write(1, b"within ")
        with output_to_stderr():
            ctypes.CDLL(None).printf(b"deeper ")
    os.write(1, b"after")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("before after", "within deeper ")


def test_rude_worlds_have_the_bytes_of_polite_ones(tmp_path: Path) -> None:
    """The pixels, and so what is made of them, owe nothing to NumPy's errors, warnings and PyTorch's defaults."""
    settings = {"policy": "random", "episodes": 3}
    collect(stamp_config(tmp_path / "rude", env="tests/Rude-v0", env_kwargs='{"folder": "/"}', **settings))
    collect(stamp_config(tmp_path / "polite", **settings))
    rude, polite = (open_dataset(tmp_path / name) for name in ("rude", "polite"))
    assert digests(tmp_path / "rude").keys() == digests(tmp_path / "polite").keys()
    for number in range(3):
        np.testing.assert_array_equal(rude.episode(number).pixels, polite.episode(number).pixels)
        np.testing.assert_array_equal(rude.episode(number).action, polite.episode(number).action)


class Forking(StampEnv):
    """Its steps fork; the child exits or raises, as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def step(self, action: Any) -> Any:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == {"exit": 3, "raise": 1}[self.how]
        elif self.how == "exit":
            sys.exit(3)
        else:
            raise ValueError
        return super().step(action)


gymnasium.register("tests/Forking-v0", entry_point=Forking)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("how", ["exit", "raise"])
def test_a_fork_that_an_environment_lets_go_does_not_collect(how: str, tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "plain", episodes=1))
    collect(stamp_config(tmp_path / "forking", env="tests/Forking-v0", env_kwargs={"how": how}, episodes=1))
    plain, forking = (open_dataset(tmp_path / name).episode(0) for name in ("plain", "forking"))
    np.testing.assert_array_equal(forking.pixels, plain.pixels)
