"""Episodes of one or several datasets, chosen by a condition, into a new dataset: merge, filter, split, drop.

A condition (`condition`) and lists, shares and draws (`choice`) choose from the table of all episodes (`episodes`). The
datasets must agree in what a row means (`agreement`). From that follows the new dataset (`plan`), which the whole run (`stage`)
writes, as every stage does. Other stages read several datasets as that one, without writing it (`several`).
"""

from worldmodel_v.selection.config import SelectConfig
from worldmodel_v.selection.several import open_rollouts
from worldmodel_v.selection.stage import SelectReport, select

__all__ = ["SelectConfig", "SelectReport", "open_rollouts", "select"]
