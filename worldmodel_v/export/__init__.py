"""Export: rollouts and latents in other trainers' formats, and models in formats that do not need this package.

Each trainer's format has a module, named after it; `registry` lists them, `stage` runs one. Only `model` needs torch, so
this file does not import it.
"""

from worldmodel_v.export.config import ExportConfig
from worldmodel_v.export.registry import FORMATS
from worldmodel_v.export.stage import ExportReport, export

__all__ = ["FORMATS", "ExportConfig", "ExportReport", "export"]
