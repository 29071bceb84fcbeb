"""Where a shard's checksums stand, so that a test can change what they protect and set them right again.

A stranger's file has right checksums; only such changes get past them and into a parser.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worldmodel_v.storage.checksum import fletcher32, lookup3
from worldmodel_v.storage.structure import _Heap, _Piece, _Reader


@dataclass(frozen=True)
class Piece:
    """A stretch of a shard with a checksum of its own."""

    kind: str
    """ "metadata": at its end, of what is before it. "chunk": so too, with Fletcher-32. "heap": within, of all but itself."""

    start: int
    size: int
    checksum_at: int

    def mend(self, image: bytearray) -> None:
        """Set the checksum right."""
        end = self.start + self.size
        if self.kind == "heap":
            image[self.checksum_at : self.checksum_at + 4] = bytes(4)
            value = lookup3(bytes(image[self.start : end]))
        else:
            value = (fletcher32 if self.kind == "chunk" else lookup3)(bytes(image[self.start : end - 4]))
        image[self.checksum_at : self.checksum_at + 4] = value.to_bytes(4, "little")


class _Recorder(_Reader):
    """A reader that notes which pieces it checks."""

    def __init__(self, image: bytes) -> None:
        self.pieces: list[Piece] = []
        super().__init__(lambda offset, size: image[offset : offset + size], len(image))

    def _checked(self, offset: int, size: int, what: str) -> _Piece:
        self.pieces.append(Piece("metadata", offset, size, offset + size - 4))
        return super()._checked(offset, size, what)

    def _direct_blocks(self, heap: _Heap, heap_address: int, what: str) -> Iterator[tuple[int, int, int]]:
        for start, size, address in super()._direct_blocks(heap, heap_address, what):
            self.pieces.append(Piece("heap", address, size, address + 13 + heap.offset_bytes))
            yield start, size, address


def pieces_of(image: bytes) -> list[Piece]:
    """Every stretch of a valid shard that a checksum protects, without doubles."""
    recorder = _Recorder(image)
    for column in recorder.structure().columns.values():
        recorder.pieces += [Piece("chunk", at, size, at + size - 4) for at, size in column.places.tolist()]
    return list(dict.fromkeys(recorder.pieces))


def mended(image: bytes | bytearray, pieces: list[Piece]) -> bytes:
    """The image with every checksum set right."""
    whole = bytearray(image)
    for piece in pieces:
        piece.mend(whole)
    return bytes(whole)
