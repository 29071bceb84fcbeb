"""The policy of the quickstart, for benchmarks that should match it."""

from pathlib import Path

from worldmodel_v.pipeline import load_pipeline


def quickstart_policy() -> str:
    """The policy of `pipelines/quickstart.yaml`."""
    return load_pipeline(Path(__file__).parent.parent / "pipelines" / "quickstart.yaml", Path()).collect.policy
