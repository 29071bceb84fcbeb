"""`wm-eval`: measure what a VAE's latents are worth."""

from worldmodel_v.cli.following import after_eval
from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_evaluation


def main() -> None:
    """Entry point of `wm-eval`."""
    from worldmodel_v.evaluation import EvalConfig, evaluate

    run("wm-eval", EvalConfig, evaluate, show=print_evaluation, following=after_eval)
