"""Rollouts are the same to the byte on other processors.

One processor stands in for lesser ones. Whatever picks instructions by itself (numba, NumPy, OpenBLAS, PyTorch, oneDNN, the C
library) is told to use those of the other alone. A processor that this one cannot stand in for is left out.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__

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


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="its processors are those of x86-64")
def test_other_processors_give_the_same_bytes(tmp_path: Path) -> None:
    able = {name: settings for name, (needed, settings) in PROCESSORS.items() if {needed} - {""} <= flags()}
    if len(able) == 1:
        pytest.skip("this processor can stand in for no other")
    found: dict[str, dict[str, bytes]] = {}
    for name, settings in able.items():
        out = tmp_path / name
        out.mkdir()
        apart = {"NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / f"numba {name}")} if settings else {}
        command = [sys.executable, "-c", WORK, str(out), *ENVIRONMENTS]
        done = subprocess.run(command, env=os.environ | settings | apart, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.h5")}
    first, *others = found.values()
    assert len(first) == 2 * len(ENVIRONMENTS)
    assert all(other == first for other in others)
