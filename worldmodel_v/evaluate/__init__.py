"""How good a VAE is on held-out frames, what a dataset's drivers saw, and pictures of frames."""

from worldmodel_v.evaluate.grids import frame_grid, reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluate.metrics import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate", "frame_grid", "reconstruction_grid", "sample_grid", "to_png"]
