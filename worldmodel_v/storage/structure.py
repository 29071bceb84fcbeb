"""What an HDF5 file holds and where, read without the HDF5 library, from the one layout that the format allows.

Shards come from strangers, and HDF5's C code is not safe against them. Of shards with randomly changed metadata and corrected
checksums, HDF5 2.0 crashed on one in a hundred and fifty, some with a corrupted heap. So it writes shards and never reads one.
The format uses a small part of HDF5: superblock 3, object headers 2, columns in the root group, chunked along rows, chunk
indices of fixed size. This module reads that part in Python, by the file format specification 3.0 (The HDF Group), and
verifies every checksum. It refuses by name anything else that HDF5 could express. The cost is the code of this module;
opening a shard takes 0.6 (rollouts) to 0.8 (latents) of the CPU time that it took through the library (AMD EPYC, h5py 3.16,
2026-11-20). Rejected: checking the structure here and then reading through HDF5, which does the work twice and is safe only
if two parsers agree; and HDF5 in a separate process, which costs a copy of every row.

The file's own size bounds memory and time: claimed sizes allocate nothing, and no byte is visited twice.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from worldmodel_v.storage.checksum import lookup3
from worldmodel_v.untrusted import is_name

Read = Callable[[int, int], bytes]
"""(offset, size) -> that part of the file, or less where it ends."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1
HEAD_BYTES = 16384
"""Read at once, because most of the metadata lies at the start."""

MAX_HEADER_BYTES = 1 << 20
MAX_ATTRIBUTE_BYTES = 16 << 20
MAX_LINKS = 64
MAX_CHUNKS = 1 << 20

NIL, DATASPACE, LINK_INFO, DATATYPE, FILL_VALUE, LINK, LAYOUT = 0, 1, 2, 3, 5, 6, 8
GROUP_INFO, FILTERS, ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO = 10, 11, 12, 16, 21
GROUP_MESSAGES = {NIL, LINK_INFO, LINK, GROUP_INFO, ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO}
COLUMN_MESSAGES = {NIL, DATASPACE, DATATYPE, FILL_VALUE, LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO}
FOREIGN = {7: "is stored in other files", 17: "is a group of the old kind", 18: "has a time stamp", 22: "has several names"}
"""What the other types of messages mean."""

DEFLATE, SHUFFLE = 1, 2


def _integer(size: int, *, signed: bool) -> bytes:
    return bytes([8 * signed, 0, 0]) + size.to_bytes(4, "little") + bytes([0, 0, 8 * size, 0])


def _floating(size: int, exponent_bits: int, mantissa_bits: int) -> bytes:
    bits, bias = 8 * size, 2 ** (exponent_bits - 1) - 1
    places = bytes([0, 0, bits, 0, mantissa_bits, exponent_bits, 0, mantissa_bits]) + bias.to_bytes(4, "little")
    return bytes([0x20, bits - 1, 0]) + size.to_bytes(4, "little") + places


_NUMBERS: dict[tuple[int, bytes], np.dtype] = {
    (0, _integer(1, signed=False)): np.dtype(np.uint8),
    (0, _integer(2, signed=False)): np.dtype(np.uint16),
    (0, _integer(4, signed=False)): np.dtype(np.uint32),
    (0, _integer(1, signed=True)): np.dtype(np.int8),
    (0, _integer(2, signed=True)): np.dtype(np.int16),
    (0, _integer(4, signed=True)): np.dtype(np.int32),
    (0, _integer(8, signed=True)): np.dtype(np.int64),
    (1, _floating(2, 5, 10)): np.dtype(np.float16),
    (1, _floating(4, 8, 23)): np.dtype(np.float32),
    (1, _floating(8, 11, 52)): np.dtype(np.float64),
    (8, b"\2\0\0\1\0\0\0\x10" + _integer(1, signed=True) + b"FALSE\0TRUE\0\0\1"): np.dtype(np.bool_),
}
"""Every number type that a shard may hold, by its class and the rest of its message."""

_TYPE_CLASSES = (
    *("integers", "floats", "times", "texts", "bit fields", "opaque bytes", "compounds", "references", "enumerations"),
    *("values of variable length", "arrays", "complex numbers"),
)


class Malformed(Exception):
    """The file is not laid out as the format says; the message follows the file's name."""


@dataclass(frozen=True)
class StoredColumn:
    """One HDF5 dataset of the root group."""

    dtype: np.dtype
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    filters: tuple[int, ...]
    """The numbers of its filters, in the order in which they were applied."""

    places: np.ndarray
    """int64 (chunks along the rows, 2): the offset and size in bytes of each. Size 0 where filters were skipped."""

    attributes: dict[str, Any]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk without its filters."""
        return math.prod(self.chunks) * self.dtype.itemsize


@dataclass(frozen=True)
class Structure:
    """The root group."""

    attributes: dict[str, Any]
    """Texts as bytes, numbers as numpy scalars and arrays."""

    columns: dict[str, StoredColumn]


def read_structure(read: Read, num_bytes: int) -> Structure:
    """What a file of `num_bytes` holds; raises Malformed if it is damaged or not laid out as the format says."""
    return _Reader(read, num_bytes).structure()


@dataclass
class _Piece:
    """Some bytes of the file, taken from front to back."""

    content: bytes
    what: str
    at: int = 0

    def take(self, size: int) -> bytes:
        taken = self.content[self.at : self.at + size]
        if len(taken) < size:
            raise Malformed(f"{self.what} ends too early")
        self.at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def expect(self, expected: bytes, meaning: str) -> None:
        if (found := self.take(len(expected))) != expected:
            raise Malformed(f"{self.what}: expected {meaning} {expected.hex()}, found {found.hex()}")

    @property
    def rest(self) -> int:
        return len(self.content) - self.at


@dataclass
class _Object:
    """An object header's messages, by type, and its attributes."""

    what: str
    messages: dict[int, list[_Piece]] = field(default_factory=dict)

    def one(self, type_: int, meaning: str) -> _Piece:
        found = self.messages.get(type_, [])
        if len(found) != 1:
            raise Malformed(f"{self.what} has {len(found)} messages of its {meaning}, expected one")
        return found[0]


class _Reader:
    def __init__(self, read: Read, num_bytes: int) -> None:
        self._read, self._num_bytes = read, num_bytes
        self._head = read(0, min(HEAD_BYTES, num_bytes))

    def structure(self) -> Structure:
        if self._head[:8] != SIGNATURE:
            raise Malformed("not a readable HDF5 file: it does not begin with HDF5's signature")
        superblock = self._checked(0, 48, "its superblock")
        superblock.take(len(SIGNATURE))
        superblock.expect(b"\3\x08\x08\0", "version, sizes and flags")
        superblock.expect(bytes(8) + b"\xff" * 8, "base address and extension")
        end, root = superblock.number(8), superblock.number(8)
        if end != self._num_bytes:
            raise Malformed(f"its superblock says that it ends at byte {end}, it has {self._num_bytes}")
        group = self._object(root, "the root group", GROUP_MESSAGES)
        links = self._links(group)
        if len({root, *links.values()}) != 1 + len(links):
            raise Malformed("two names of the root group lead to one object")
        attributes = self._attributes(group)
        columns = {name: self._column(name, address) for name, address in links.items()}
        self._require_disjoint(columns)
        return Structure(attributes, columns)

    # Bytes

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > self._num_bytes:
            raise Malformed(f"{what} is said to lie at bytes {offset} to {offset + size}, the file has {self._num_bytes}")
        if offset + size <= len(self._head):
            return self._head[offset : offset + size]
        content = self._read(offset, size)
        if len(content) < size:
            raise Malformed(f"{what} cannot be read to its end")
        return content

    def _checked(self, offset: int, size: int, what: str) -> _Piece:
        """A piece whose last four bytes are its checksum, verified and without these bytes."""
        content = self._bytes(offset, size, what)
        if size < 4 or lookup3(content[:-4]) != int.from_bytes(content[-4:], "little"):
            raise Malformed(f"{what} fails its checksum")
        return _Piece(content[:-4], what)

    # Objects

    def _object(self, address: int, what: str, allowed: set[int]) -> _Object:
        where = f"the header of {what}"
        prefix = _Piece(self._bytes(address, 16, where), where)
        prefix.expect(b"OHDR\2", "signature and version")
        flags = prefix.number(1)
        if flags & ~0b100111:
            raise Malformed(f"{where} has the flags {flags:#x}")
        start = prefix.at + 16 * bool(flags & 0x20)
        size_bytes = 1 << (flags & 3)
        size = int.from_bytes(self._bytes(address + start, size_bytes, where), "little")
        blocks = [(address, start + size_bytes, size)]
        object_, seen, total = _Object(what), {address}, 0
        while blocks:
            offset, skipped, size = blocks.pop()
            total += size
            if total > MAX_HEADER_BYTES:
                raise Malformed(f"{where} claims {total} bytes or more, expected at most {MAX_HEADER_BYTES}")
            block = self._checked(offset, skipped + size + 4, where)
            if offset != address:
                block.expect(b"OCHK", "signature")
            block.at = skipped
            for type_, message in self._messages(block, bool(flags & 4)):
                if type_ not in allowed:
                    raise Malformed(f"{what} {FOREIGN.get(type_, f'has a message of type {type_}')}, which no shard does")
                if type_ == CONTINUATION:
                    next_block = message.number(8)
                    if next_block in seen:
                        raise Malformed(f"{where} goes round in a circle")
                    seen.add(next_block)
                    blocks.append((next_block, 4, max(0, message.number(8) - 8)))
                else:
                    object_.messages.setdefault(type_, []).append(message)
        return object_

    def _messages(self, block: _Piece, ordered: bool) -> Iterator[tuple[int, _Piece]]:
        while block.rest >= 4 + 2 * ordered:
            type_, size, flags = block.number(1), block.number(2), block.number(1)
            if flags & 2:
                raise Malformed(f"{block.what} has a message that is stored elsewhere")
            block.take(2 * ordered)
            yield type_, _Piece(block.take(size), block.what)

    # The root group

    def _links(self, group: _Object) -> dict[str, int]:
        info = group.one(LINK_INFO, "links")
        info.expect(b"\0", "version")
        info.take(8 * bool(info.number(1) & 1))
        heap, index = info.number(8), info.number(8)
        messages = group.messages.get(LINK, [])
        if heap != UNDEFINED:
            messages = [*messages, *self._heap(heap, index, record_type=5, id_at=4, what="the links of the root group")]
        if len(messages) > MAX_LINKS:
            raise Malformed(f"the root group has {len(messages)} links, more than any shard has columns")
        links: dict[str, int] = {}
        for message in messages:
            name, address = self._link(message)
            if name in links:
                raise Malformed(f"the root group has two links of the name {name!r}")
            links[name] = address
        return links

    def _link(self, message: _Piece) -> tuple[str, int]:
        message.expect(b"\1", "version of a link")
        flags = message.number(1)
        kind = message.number(1) if flags & 8 else 0
        message.take(8 * bool(flags & 4) + bool(flags & 16))
        name = _text(message.take(message.number(1 << (flags & 3))), message.what)
        if kind:
            raise Malformed(f"{name} is a link to somewhere else")
        return name, message.number(8)

    # Columns

    def _column(self, name: str, address: int) -> StoredColumn:
        prefix = self._bytes(address, 4, name)
        if prefix != b"OHDR":
            raise Malformed(f"{name} is no HDF5 object of version 2 (libver v110)")
        object_ = self._object(address, name, COLUMN_MESSAGES | {LINK_INFO, GROUP_INFO, LINK})
        if LINK_INFO in object_.messages:
            raise Malformed(f"{name} is a group, expected a column")
        dtype = self._dtype(object_.one(DATATYPE, "type"), name)
        shape = self._shape(object_.one(DATASPACE, "shape"), name)
        filters = self._filters(object_, name, dtype)
        chunks, places = self._layout(object_, name, dtype, shape)
        return StoredColumn(dtype, shape, chunks, filters, places, self._attributes(object_))

    def _dtype(self, message: _Piece, what: str) -> np.dtype:
        kind = message.number(1)
        class_, version, definition = kind & 15, kind >> 4, message.take(message.rest)
        if class_ == 3 and 1 <= version <= 3 and len(definition) == 7:
            size = int.from_bytes(definition[3:], "little")
            return np.dtype(f"S{size}") if 0 < size <= MAX_ATTRIBUTE_BYTES else self._refuse_type(class_, what)
        for (known, expected), dtype in _NUMBERS.items():
            padding = definition[len(expected) :]
            if known == class_ and definition.startswith(expected) and len(padding) < 8 and not any(padding):
                return dtype
        return self._refuse_type(class_, what)

    @staticmethod
    def _refuse_type(class_: int, what: str) -> NoReturn:
        kind = _TYPE_CLASSES[class_] if class_ < len(_TYPE_CLASSES) else f"values of class {class_}"
        raise Malformed(f"{what} holds {kind} of a type that no shard has")

    def _shape(self, message: _Piece, what: str) -> tuple[int, ...]:
        message.expect(b"\2", f"version of the shape of {what}")
        rank, flags, kind = message.number(1), message.number(1), message.number(1)
        shape = tuple(message.number(8) for _ in range(rank))
        largest = tuple(message.number(8) for _ in range(rank)) if flags & 1 else shape
        if flags & ~1 or kind != (rank > 0) or largest != shape:
            raise Malformed(f"{what} has the shape {shape}, which may become {largest}; expected one that is fixed")
        return shape

    def _filters(self, object_: _Object, what: str, dtype: np.dtype) -> tuple[int, ...]:
        if FILTERS not in object_.messages:
            return ()
        message = object_.one(FILTERS, "filters")
        message.expect(b"\2", f"version of the filters of {what}")
        filters: list[int] = []
        for _ in range(message.number(1)):
            filters.append(message.number(2))
            name_bytes = message.number(2) if filters[-1] >= 256 else 0
            message.take(2)
            num_values = message.number(2)
            message.take(name_bytes)
            values = [message.number(4) for _ in range(num_values)]
            if filters[-1] == SHUFFLE and values != [dtype.itemsize]:
                raise Malformed(f"{what} is shuffled by {values} bytes, its values have {dtype.itemsize}")
        return tuple(filters)

    def _layout(
        self, object_: _Object, what: str, dtype: np.dtype, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], np.ndarray]:
        message = object_.one(LAYOUT, "layout")
        version, kind = message.number(1), message.number(1)
        if kind != 2:
            raise Malformed(f"{what} is not stored in chunks of this file")
        if version != 4:
            raise Malformed(f"{what} has a layout of version {version}, expected 4 (libver v110)")
        flags, rank, size_bytes = message.number(1), message.number(1), message.number(1)
        *chunks, itemsize = (message.number(size_bytes) for _ in range(max(rank, 1)))
        if itemsize != dtype.itemsize or len(chunks) != len(shape) or 0 in chunks or tuple(chunks[1:]) != shape[1:]:
            raise Malformed(f"{what} of shape {shape} has the chunks {tuple(chunks)} of {itemsize} bytes: expected whole rows")
        num_chunks = -(-shape[0] // chunks[0])
        if not 0 < num_chunks <= MAX_CHUNKS:
            raise Malformed(f"{what} claims {num_chunks} chunks, expected 1 to {MAX_CHUNKS}")
        index = message.number(1)
        if index == 1 and flags == 2 and num_chunks == 1:
            size, mask, address = message.number(8), message.number(4), message.number(8)
            places = np.array([[address, size, mask]], np.uint64)
        elif index == 3 and flags == 0:
            message.take(1)
            places = self._fixed_array(message.number(8), num_chunks, what)
        elif FILTERS not in object_.messages:
            raise Malformed(f"{what} has the filters [], expected Fletcher-32 at least")
        else:
            raise Malformed(
                f"{what} has {num_chunks} chunks under an index of kind {index} (flags {flags}), which no shard has"
            )
        return tuple(chunks), self._places(places, what)

    def _fixed_array(self, address: int, num_chunks: int, what: str) -> np.ndarray:
        """uint64 (num_chunks, 3): address, size and filter mask of each chunk."""
        where = f"the index of the chunks of {what}"
        if address == UNDEFINED:
            raise Malformed(f"{what} has chunks that were never written")
        header = self._checked(address, 28, where)
        header.expect(b"FAHD\0\1", "signature, version and client")
        entry_bytes, page_bits, num_entries, block = (header.number(size) for size in (1, 1, 8, 8))
        if num_entries != num_chunks or not 13 <= entry_bytes <= 20 or not 0 < page_bits <= 32:
            raise Malformed(f"{where} has {num_entries} entries of {entry_bytes} bytes, expected {num_chunks}")
        if block == UNDEFINED:
            raise Malformed(f"{what} has chunks that were never written")
        page, prefix = 1 << page_bits, 14
        if num_chunks <= page:
            piece = self._checked(block, prefix + num_chunks * entry_bytes + 4, where)
            content = piece.content[prefix:]
        else:
            num_pages = -(-num_chunks // page)
            prefix += (num_pages + 7) // 8
            piece = self._checked(block, prefix + 4, where)
            offset, pages = block + prefix + 4, []
            for first in range(0, num_chunks, page):
                size = min(page, num_chunks - first) * entry_bytes + 4
                pages.append(self._checked(offset, size, where).content)
                offset += size
            content = b"".join(pages)
        piece.expect(b"FADB\0\1" + address.to_bytes(8, "little"), "signature, version, client and owner")
        entries = np.frombuffer(content, np.uint8).reshape(num_chunks, entry_bytes)
        return np.stack([_numbers(entries[:, :8]), _numbers(entries[:, 8:-4]), _numbers(entries[:, -4:])], axis=1)

    def _places(self, found: np.ndarray, what: str) -> np.ndarray:
        address, size, mask = found.T
        if (address == UNDEFINED).any():
            raise Malformed(f"{what} has chunks that were never written")
        if (address > self._num_bytes).any() or (
            size > np.uint64(self._num_bytes) - np.minimum(address, self._num_bytes)
        ).any():
            raise Malformed(f"{what} has chunks beyond the end of the file")
        return np.stack([address, np.where(mask == 0, size, 0)], axis=1).astype(np.int64)

    @staticmethod
    def _require_disjoint(columns: dict[str, StoredColumn]) -> None:
        places = np.concatenate([column.places for column in columns.values()] or [np.zeros((0, 2), np.int64)])
        offsets, sizes = places[places[:, 0].argsort(kind="stable")].T
        if (offsets[:-1] + sizes[:-1] > offsets[1:]).any():
            raise Malformed("it has chunks that overlap")

    # Attributes

    def _attributes(self, object_: _Object) -> dict[str, Any]:
        messages = object_.messages.get(ATTRIBUTE, [])
        for info in object_.messages.get(ATTRIBUTE_INFO, []):
            info.expect(b"\0", "version")
            info.take(2 * bool(info.number(1) & 1))
            heap, index = info.number(8), info.number(8)
            if heap != UNDEFINED:
                what = f"the attributes of {object_.what}"
                messages = [*messages, *self._heap(heap, index, record_type=8, id_at=0, what=what)]
        return dict(self._attribute(message, object_.what) for message in messages)

    def _attribute(self, message: _Piece, owner: str) -> tuple[str, Any]:
        message.expect(b"\3\0", f"version of an attribute of {owner}")
        name_bytes, dtype_bytes, shape_bytes = (message.number(2) for _ in range(3))
        message.take(1)
        name = _text(message.take(name_bytes).removesuffix(b"\0"), owner)
        what = f"attribute {name} of {owner}"
        dtype = self._dtype(_Piece(message.take(dtype_bytes), what), what)
        shape = self._shape(_Piece(message.take(shape_bytes), what), what)
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes > MAX_ATTRIBUTE_BYTES:
            raise Malformed(f"{what} claims {num_bytes} bytes, expected at most {MAX_ATTRIBUTE_BYTES}")
        values = np.frombuffer(message.take(num_bytes), dtype).reshape(shape)
        return name, values[()]

    # Heaps: HDF5 keeps more than eight links there, and attributes above 64 KB

    def _heap(self, address: int, index: int, *, record_type: int, id_at: int, what: str) -> list[_Piece]:
        """Every object of a fractal heap that a version 2 B-tree of one leaf lists."""
        heap = _Heap.of(self._checked(address, 146, what))
        records = self._records(index, record_type, what)
        found = []
        for record in records:
            id_ = _Piece(record[id_at : id_at + heap.id_bytes], what)
            kind = id_.number(1)
            if kind == 0x00:
                offset = id_.number(heap.offset_bytes)
                found.append(_Piece(self._managed(heap, address, offset, id_.number(id_.rest), what), what))
            elif kind == 0x10:
                found.append(_Piece(self._huge(heap, id_.number(id_.rest), what), what))
            else:
                raise Malformed(f"{what} stand in a heap in a way that no shard has ({kind:#x})")
        return found

    def _records(self, address: int, record_type: int, what: str) -> list[bytes]:
        header = self._checked(address, 38, what)
        header.expect(b"BTHD\0" + bytes([record_type]), "signature, version and type")
        node_bytes, size, depth = header.number(4), header.number(2), header.number(2)
        header.take(2)
        root, count = header.number(8), header.number(2)
        if depth or count > MAX_LINKS or 10 + count * size > node_bytes:
            raise Malformed(f"{what} are {count} or more in a tree of depth {depth}, more than any shard has")
        leaf = self._checked(root, 10 + count * size, what)
        leaf.expect(b"BTLF\0" + bytes([record_type]), "signature, version and type")
        return [leaf.take(size) for _ in range(count)]

    def _managed(self, heap: "_Heap", heap_address: int, offset: int, size: int, what: str) -> bytes:
        for start, block_bytes, address in self._direct_blocks(heap, heap_address, what):
            if start <= offset and offset + size <= start + block_bytes:
                block = self._bytes(address, block_bytes, what)
                prefix = 13 + heap.offset_bytes
                owner = b"FHDB\0" + heap_address.to_bytes(8, "little") + start.to_bytes(heap.offset_bytes, "little")
                unsigned = block[:prefix] + bytes(4) + block[prefix + 4 :]
                if block[:prefix] != owner or lookup3(unsigned) != int.from_bytes(block[prefix : prefix + 4], "little"):
                    raise Malformed(f"{what} fail their checksum")
                return block[offset - start : offset - start + size]
        raise Malformed(f"{what} lie outside their heap")

    def _direct_blocks(self, heap: "_Heap", heap_address: int, what: str) -> Iterator[tuple[int, int, int]]:
        """(first byte in the heap, size, address in the file) of every block that is there."""
        if heap.num_rows == 0:
            yield 0, heap.start_bytes, heap.root
            return
        sizes = [heap.start_bytes << max(0, row - 1) for row in range(heap.num_rows)]
        if sizes[-1] > heap.max_direct_bytes:
            raise Malformed(f"{what} take more room than any shard's")
        prefix = 13 + heap.offset_bytes
        block = self._checked(heap.root, prefix + 8 * heap.width * heap.num_rows + 4, what)
        block.expect(b"FHIB\0" + heap_address.to_bytes(8, "little") + bytes(heap.offset_bytes), "signature, version and owner")
        start = 0
        for size in sizes:
            for _ in range(heap.width):
                address = block.number(8)
                if address != UNDEFINED:
                    yield start, size, address
                start += size

    def _huge(self, heap: "_Heap", number: int, what: str) -> bytes:
        for record in self._records(heap.huge_index, 1, what):
            address, size, id_ = (int.from_bytes(record[at : at + 8], "little") for at in (0, 8, 16))
            if id_ == number:
                if size > MAX_ATTRIBUTE_BYTES:
                    raise Malformed(f"{what} take {size} bytes, expected at most {MAX_ATTRIBUTE_BYTES}")
                return self._bytes(address, size, what)
        raise Malformed(f"{what} lie outside their heap")


@dataclass(frozen=True)
class _Heap:
    """What the header of a fractal heap says."""

    id_bytes: int
    huge_index: int
    width: int
    start_bytes: int
    max_direct_bytes: int
    offset_bytes: int
    root: int
    num_rows: int

    @classmethod
    def of(cls, header: _Piece) -> "_Heap":
        header.expect(b"FRHP\0", "signature and version")
        id_bytes, filter_bytes, flags = header.number(2), header.number(2), header.number(1)
        header.take(12)
        huge_index = header.number(8)
        header.take(80)
        width, start_bytes, max_direct_bytes = header.number(2), header.number(8), header.number(8)
        offset_bits, _, root, num_rows = header.number(2), header.number(2), header.number(8), header.number(2)
        if filter_bytes or not flags & 2 or not 0 < width <= 16 or num_rows > 32 or not 0 < offset_bits <= 64 or id_bytes > 16:
            raise Malformed(f"{header.what} stand in a heap of a kind that no shard has")
        if not 0 < start_bytes <= max_direct_bytes <= MAX_HEADER_BYTES:
            raise Malformed(f"{header.what} stand in a heap with blocks of {start_bytes} to {max_direct_bytes} bytes")
        return cls(id_bytes, huge_index, width, start_bytes, max_direct_bytes, -(-offset_bits // 8), root, num_rows)


def _numbers(columns: np.ndarray) -> np.ndarray:
    """Little-endian numbers of up to 8 bytes: uint8 (n, size) -> uint64 (n,)."""
    padded = np.zeros((len(columns), 8), np.uint8)
    padded[:, : columns.shape[1]] = columns
    return padded.view("<u8").reshape(-1)


def _text(content: bytes, what: str) -> str:
    text = content.decode(errors="replace")
    if not is_name(text):
        raise Malformed(f"{what} has a name that is long or not printable")
    return text
