"""How good a VAE is on held-out frames, what a dataset's drivers saw, and pictures of frames.

`evaluate` gives the short result that training reports; `evaluate_vae` gives the long one of `wm-eval`.
"""

from worldmodel_v.evaluation.canvas import Row, frame_grid
from worldmodel_v.evaluation.config import EvalConfig
from worldmodel_v.evaluation.grids import reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluation.metrics import evaluate
from worldmodel_v.evaluation.stage import EvaluationReport, evaluate_vae, require_packages

__all__ = [
    "EvalConfig",
    "EvaluationReport",
    "Row",
    "evaluate",
    "evaluate_vae",
    "frame_grid",
    "reconstruction_grid",
    "require_packages",
    "sample_grid",
    "to_png",
]
