"""How good a VAE is on held-out frames, what a dataset's drivers saw, and pictures of frames.

`evaluate` gives the short result that training reports; `evaluate_vae` gives the long one of `wm-eval`.
"""

from worldmodel_v.evaluate.canvas import Row, frame_grid
from worldmodel_v.evaluate.config import EvalConfig
from worldmodel_v.evaluate.grids import reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluate.metrics import evaluate
from worldmodel_v.evaluate.stage import EvaluationReport, evaluate_vae

__all__ = [
    "EvalConfig",
    "EvaluationReport",
    "Row",
    "evaluate",
    "evaluate_vae",
    "frame_grid",
    "reconstruction_grid",
    "sample_grid",
    "to_png",
]
