"""Rollouts are the same to the byte on other processors, and latents but for their last digits.

One processor stands in for lesser ones. Whatever picks instructions by itself (numba, NumPy, OpenBLAS, PyTorch, oneDNN, the C
library) is told to use those of the other alone. A processor that this one cannot stand in for is left out.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy._core._multiarray_umath import __cpu_dispatch__

from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.collection import CollectConfig, collect

ENVIRONMENTS = ("worldmodel_v/CarRacing-v3", "CarRacing-v3")
"""The compiled one, and the one of Gymnasium, whose physics Box2D computes in both."""

WORK = """
import sys
from pathlib import Path
from worldmodel_v.collection import CollectConfig, collect

out, *environments = sys.argv[1:]
policy = "mixture(driver(noise=0.2), brownian)"
for number, env in enumerate(environments):
    place = Path(out) / f"rollouts{number}"
    collect(CollectConfig(env=env, out=place, policy=policy, episodes=2, episodes_per_shard=1, max_steps=60, workers=0))
"""

ENCODE = """
import sys
from worldmodel_v.encoding import EncodeConfig, encode

out, rollouts, vae = sys.argv[1:]
encode(EncodeConfig(data=rollouts, vae=vae, out=f"{out}/latents", device="cpu"))
"""

FARTHEST = 5e-6
"""How far a latent on another processor may be, in standard deviations of its column: `docs` says 4 millionths."""

WITHOUT_AVX = {
    "NUMBA_CPU_NAME": "generic",
    "NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__),
    "OPENBLAS_CORETYPE": "Nehalem",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F",
}
WITH_AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in __cpu_dispatch__ if "512" in name or name == "X86_V4"),
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
PROCESSORS = {"its own": ("", {}), "no AVX": ("avx", WITHOUT_AVX), "AVX2": ("avx512f", WITH_AVX2)}
"""The flag of a processor that is more than the one that it stands in for, and what makes it do so."""


def flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def all_rows(latents: Path, column: str) -> Iterator[np.ndarray]:
    for shard in sorted((latents / "shards").iterdir()):
        with h5py.File(shard) as opened:
            yield opened[column][:]


@pytest.fixture
def on_each_processor(tmp_path: Path) -> Callable[..., list[Path]]:
    """Runs a program on each processor that this one can stand in for, and gives the folders of what each has made."""
    able = {name: settings for name, (needed, settings) in PROCESSORS.items() if {needed} - {""} <= flags()}
    if len(able) == 1:
        pytest.skip("this processor can stand in for no other")

    def program(code: str, *arguments: object) -> list[Path]:
        folders = []
        for name, settings in able.items():
            out = tmp_path / name
            out.mkdir()
            apart = {"NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / f"numba {name}")} if settings else {}
            command = [sys.executable, "-c", code, str(out), *map(str, arguments)]
            done = subprocess.run(command, env=os.environ | settings | apart, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            folders.append(out)
        return folders

    return program


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its processors are those of x86-64")
def test_other_processors_give_the_same_bytes(on_each_processor: Callable[..., list[Path]]) -> None:
    folders = on_each_processor(WORK, *ENVIRONMENTS)
    first, *others = [{str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.h5")} for out in folders]
    assert len(first) == 2 * len(ENVIRONMENTS)
    assert all(other == first for other in others)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its processors are those of x86-64")
def test_latents_differ_in_their_last_digits_alone(tmp_path: Path, on_each_processor: Callable[..., list[Path]]) -> None:
    """Prints how far, which `pytest -s` shows."""
    settings: dict[str, Any] = {"policy": "brownian", "episodes": 2, "episodes_per_shard": 1, "max_steps": 120, "workers": 0}
    collect(CollectConfig(env="worldmodel_v/CarRacing-v3", out=tmp_path / "rollouts", **settings))
    (tmp_path / "vae").mkdir()
    torch.manual_seed(0)
    (tmp_path / "vae" / "vae.safetensors").write_bytes(save(VAE(VAEConfig(architecture="conv"))))
    folders = on_each_processor(ENCODE, tmp_path / "rollouts", tmp_path / "vae")
    for name in ("mu", "logvar"):
        expected, *others = [np.concatenate(list(all_rows(out / "latents", name))) for out in folders]
        for out, found in zip(folders[1:], others, strict=True):
            farthest = float(np.abs(found - expected).max() / expected.std())
            print(f"{out.name}: {name} differs by at most {farthest:.1e} of its standard deviation")  # noqa: T201
            assert farthest < FARTHEST
