"""What leaves the house: rollouts and latents in other trainers' formats, models in formats that need no package of ours.

One module for each trainer's format, named after it; `registry` lists them, `stage` runs one. `model` is loaded by those who
ask for it: it needs torch, these do not.
"""

from worldmodel_v.export.config import ExportConfig
from worldmodel_v.export.registry import FORMATS
from worldmodel_v.export.stage import ExportReport, export

__all__ = ["FORMATS", "ExportConfig", "ExportReport", "export"]
