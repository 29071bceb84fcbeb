"""What the quickstart collects with, for benchmarks that shall speak of it."""

from pathlib import Path

from worldmodel_v.pipeline import load_pipeline


def quickstart_policy() -> str:
    """The policy of `pipelines/quickstart.yaml`."""
    return load_pipeline(Path(__file__).parent.parent / "pipelines" / "quickstart.yaml", Path()).collect.policy
