"""How good a VAE is on held-out frames, what a dataset's drivers saw, and pictures of frames.

`evaluate` is the stage, `wm-eval`; `evaluate_frames` gives the short result that training reports.
"""

from worldmodel_v.evaluation.canvas import Row, frame_grid
from worldmodel_v.evaluation.config import EvalConfig
from worldmodel_v.evaluation.grids import reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluation.metrics import evaluate_frames
from worldmodel_v.evaluation.stage import EvaluationReport, evaluate, require_packages

__all__ = [
    "EvalConfig",
    "EvaluationReport",
    "Row",
    "evaluate",
    "evaluate_frames",
    "frame_grid",
    "reconstruction_grid",
    "require_packages",
    "sample_grid",
    "to_png",
]
