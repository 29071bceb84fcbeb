"""Episodes of one or several datasets, chosen by a condition, into a new dataset: merge, filter, split, drop.

A condition (`condition`) and lists, shares and draws (`choice`) choose from the table of all episodes (`episodes`). The
datasets must agree in what a row means (`agreement`). The whole run (`stage`) writes the new dataset, as every stage does.
"""

from worldmodel_v.selection.config import SelectConfig
from worldmodel_v.selection.stage import SelectReport, select

__all__ = ["SelectConfig", "SelectReport", "select"]
