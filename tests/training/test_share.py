"""Several processes make the step that one makes; their parts of a batch; what needs no Ray does not load it."""

import json
from pathlib import Path

import pytest
import torch

from tests.builders import run_python
from tests.commands import start
from worldmodel_v.device import resolve_device
from worldmodel_v.errors import ConfigError
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig
from worldmodel_v.training.run import TrainingRun
from worldmodel_v.training.share import ALONE, Share

RANK = """
import json, sys
from pathlib import Path
import torch, torch.distributed as dist
from tests.training.test_share import steps
rank, size, data, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=size)
from worldmodel_v.training.share import Share
share = Share(rank, size)
agreed = [share.agree(rank == 0, torch.device("cpu")), share.agree(rank == 1, torch.device("cpu"))]
terms, weights = steps(data, share, **json.loads(sys.argv[5]))
torch.save(weights, out / f"{rank}.pt")
(out / f"{rank}.json").write_text(json.dumps({"terms": terms, "agreed": agreed}))
dist.destroy_process_group()
"""
NUM_STEPS = 8
AGAINST_BLUR = {"error_weight": "error", "adversarial": 0.1, "adversarial_start": 2, "perceptual": 0.1}
CORRELATION = {"total_correlation": 2.0}
DISCRIMINATED = {**CORRELATION, "total_correlation_estimator": "discriminator"}


def steps(data: Path, share: Share = ALONE, **losses: object) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The terms of some steps with batches of 12, and the weights and the learned σ after them.

    The floor stands where the means over the whole batch are above it for some latents and those over a part for others.
    """
    small = {"batch_size": 12, "latent_dim": 8, "learning_rate": 1e-4, "beta_warmup_steps": 4, "holdout_every": 4}
    recipe = {"architecture": "conv", "likelihood": "calibrated", "free_bits": 0.01, "condition": ("action",)}
    settings = TrainConfig(data=data, out=Path(), **small, **recipe, **losses)  # type: ignore[arg-type]
    run = TrainingRun(settings, {}, resolve_device("cpu"), open_dataset(data), None, share)
    batches = run.batches()
    terms = [{name: float(value) for name, value in run.take_step(next(batches)).items()} for _ in range(NUM_STEPS)]
    batches.close()
    return terms, run.model.state_dict() | run.extras.tensors()


@pytest.mark.parametrize(
    ("size", "losses"),
    [(2, {}), (2, AGAINST_BLUR), (2, CORRELATION), (2, DISCRIMINATED), pytest.param(3, {}, marks=pytest.mark.slow)],
    ids=str,
)
def test_processes_together_make_the_steps_of_one(
    tiny_rollouts: Path, tmp_path: Path, size: int, losses: dict[str, object]
) -> None:
    """To within the order of float32 sums: a relative 1e-5 in each term of eight steps, and a tenth of one update in weights.
    (A generator's loss and a correlation are means around 0, so they also have an absolute 1e-4; a discriminator's weights may
    differ by half of one update, because Adam makes whole updates of the smallest gradients.)

    All processes end with the same weights, bit for bit.
    """
    (program := tmp_path / "rank.py").write_text(RANK)
    arguments = (size, tiny_rollouts, tmp_path, json.dumps(losses))
    processes = [start(program, rank, *arguments, PYTHONPATH=str(Path(__file__).parents[2])) for rank in range(size)]
    for process in processes:
        said = process.communicate()
        assert process.returncode == 0, said
    alone, weights = steps(tiny_rollouts, **losses)
    for rank in range(size):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["agreed"] == [True, False]
        for here, there in zip(alone, found["terms"], strict=True):
            assert there == pytest.approx(here, rel=1e-5, abs=1e-4 if losses else None)
        there = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, first in torch.load(tmp_path / "0.pt", weights_only=True).items():
            torch.testing.assert_close(there[name], first, rtol=0, atol=0)
            atol = 1e-4 if name.startswith(("discriminator.", "total_correlation.")) else 1e-5
            torch.testing.assert_close(there[name], weights[name], rtol=0, atol=atol)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_parts_of_a_batch_are_the_batch(size: int) -> None:
    rows = list(range(12))
    assert [row for rank in range(size) for row in rows[Share(rank, size).rows(12)]] == rows


def test_a_process_alone_averages_nothing() -> None:
    value = torch.tensor([1.0, 2.0])
    ALONE.average([value])
    assert value.tolist() == [1, 2]
    assert [ALONE.agree(wish, torch.device("cpu")) for wish in (True, False)] == [True, False]


def test_a_batch_that_cannot_be_cut_into_equal_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=8: cannot be cut into 3 equal parts; choose a multiple of num_work"):
        TrainConfig(data=Path(), out=Path(), batch_size=8, num_workers=3)
    with pytest.raises(ConfigError, match=r"num_workers: expected at least 1, got 0"):
        TrainConfig(data=Path(), out=Path(), num_workers=0)


def test_training_here_never_loads_ray(tiny_rollouts: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom worldmodel_v.training import TrainConfig, train\n"
        "data, out = map(Path, sys.argv[1:])\n"
        "train(TrainConfig(data=data, out=out, steps=2, batch_size=4, holdout_every=4, num_workers=1))\n"
        "print(sorted({'ray', 'pandas', 'pyarrow'} & sys.modules.keys()))"
    )
    assert run_python(code, tiny_rollouts, tmp_path / "vae") == "[]"
