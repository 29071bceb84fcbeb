"""Import: other people's recordings as a rollout dataset, row for row, and what they lack marked or left out, never invented.

A format (a module of its own, listed in `registry`) opens a `Recording` (`recording`). `stage` runs a whole import: it hashes
the files (`source_files`), makes the recording a source of collection (`source`, `columns`), and judges where the actions are.
"""

from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.recording import Recorded, Recording
from worldmodel_v.importing.registry import FORMATS
from worldmodel_v.importing.stage import ImportReport, import_recordings

__all__ = ["FORMATS", "ImportConfig", "ImportReport", "Recorded", "Recording", "import_recordings"]
