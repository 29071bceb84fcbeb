"""What `torch.save` has put into a file, without running code, in memory that the file's own size bounds.

`torch.load(weights_only=True)` runs nothing, but does not bound its memory: a compressed zip unpacks to a thousand times its
size, a pickle may ask for `bytearray(10**12)`, and a tensor may claim 30,000 rows of one stored number, which a copy writes
out. So the zip is written anew with what Python's `zipfile` finds in it, nothing of it compressed, and torch reads only that:
its own reader of zips may find another directory in the same bytes. Files from before PyTorch 1.6, which are no zips, are
refused.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from worldmodel_v.errors import PolicyNotUsable

PICKLE_NAME = "data.pkl"
STORAGES = {"torch.storage.TypedStorage", "torch.storage.UntypedStorage"}


def read_torch(file: Path | BinaryIO, num_bytes: int, where: str) -> Any:
    """The tensors of a file of `num_bytes`, in the dicts and lists that hold them. `where` begins the messages.

    Raises PolicyNotUsable if the file would grow in memory, and an error of any class if it is no such file, or would run code:
    torch's loader promises none, and its text advises to load it unsafely.
    """
    stored = torch.load(_plain_copy(file, num_bytes, where), map_location="cpu", weights_only=True)
    for name, tensor in tensors_in(stored):
        if tensor.layout != torch.strided:
            raise _grows(where, f"{name:.100} is not dense ({tensor.layout})")
        if (claimed := tensor.numel() * tensor.element_size()) > num_bytes:
            raise _grows(where, f"{name:.100} claims {claimed} bytes, the whole file has {num_bytes}")
    return stored


def tensors_in(stored: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in dicts, lists and tuples inside each other, by its name there; each container once."""
    seen, waiting = set(), [("the top", stored)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.items() if isinstance(value, Mapping) else ((name, item) for item in value)


def require_plain(archive: zipfile.ZipFile, num_bytes: int, where: str) -> None:
    """Raise PolicyNotUsable if a zip of `num_bytes` would grow in memory: trainers compress nothing in theirs."""
    entries = archive.infolist()
    if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise _grows(where, f"{packed[0]!r:.100} in it is compressed")
    if len({entry.filename for entry in entries}) < len(entries):
        raise _grows(where, "a name stands in it twice")
    if (claimed := sum(entry.file_size for entry in entries)) > num_bytes:
        raise _grows(where, f"what is in it claims {claimed} bytes, the whole file has {num_bytes}")


def _plain_copy(file: Path | BinaryIO, num_bytes: int, where: str) -> BinaryIO:
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as plain:
        require_plain(archive, num_bytes, where)
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.rpartition("/")[2] == PICKLE_NAME:
                _require_no_sizes(content, where)
            plain.writestr(entry.filename, content)
    copy.seek(0)
    return copy


def _require_no_sizes(pickle: bytes, where: str) -> None:
    """Raise PolicyNotUsable if a pickle names a type that torch makes of any size which the pickle asks for."""
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name.endswith((".bytearray", "Tensor")) or name in STORAGES:
                raise _grows(where, f"its pickle makes a {name:.100} of any size")


def _grows(where: str, what: str) -> PolicyNotUsable:
    return PolicyNotUsable(f"{where} may grow in memory: {what}; save it again, uncompressed, of contiguous tensors")
