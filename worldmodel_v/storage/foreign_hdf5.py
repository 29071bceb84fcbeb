"""HDF5 files of strangers in other projects' layouts, before a library reads them that trusts them.

HDF5 follows links to other files, reads data from external ones, and takes memory for whatever shape is claimed. Our own shards
are read by a stricter reader (`structure`); here a library of somebody else reads, and this looks first.
"""

from pathlib import Path
from typing import Any

import h5py

from worldmodel_v.errors import DatasetNotUsable, first_line
from worldmodel_v.storage.reading import readable


def require_self_contained(path: Path, most_bytes: int) -> None:
    """Raise DatasetNotUsable unless all of an HDF5 file lies in that file, and no dataset claims more than `most_bytes`.

    Raises NotReadable, too. It looks at every object, which takes about 0.1 ms each.
    """
    with readable(path), path.open("rb"):
        pass
    try:
        with h5py.File(path, "r") as file:
            linked = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
            wrong = None if linked else file.visititems(lambda name, held: _wrong(name, held, most_bytes))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetNotUsable(
            f"is no sound HDF5 file ({first_line(error)})", where=path, remedy="restore it from a copy"
        ) from None
    if linked:
        wrong = f"{linked!r:.100} is a link, which may lead to another file"
    if wrong:
        raise DatasetNotUsable(wrong, where=path, expected="data of the file's own")


def _wrong(name: str, held: Any, most_bytes: int) -> str | None:
    if not isinstance(held, h5py.Dataset):
        return None
    if held.is_virtual or held.external:
        return f"{name!r:.100} lies in another file"
    if held.size is not None and held.size * held.dtype.itemsize > most_bytes:
        return f"{name!r:.100} claims {held.dtype} {held.shape}, more than half of the memory"
    return None
