"""`wm-view`: one page in which a reader scrubs through episodes, moves the latents, and drives inside the world model.

`view` is the stage. The page needs no network: it contains frames, weights, and the library that runs them (`vendor`).
"""

from worldmodel_v.view.config import ViewConfig
from worldmodel_v.view.stage import ViewReport, view

__all__ = ["ViewConfig", "ViewReport", "view"]
