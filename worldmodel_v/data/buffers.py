"""Memory for batches that is used again, and never while somebody still looks at it."""

import ctypes
import weakref
from collections import deque

import numpy as np

MAX_FREE = 16


class Buffers:
    """Lends pieces of memory of one size; each comes back by itself when nothing refers to it any more.

    What is lent is an ordinary array. It belongs to whoever holds it, or a view of it, or a tensor over it: only when the
    last of them is gone is the memory lent again. So a consumer that keeps every batch gets new memory for each, and one
    that lets go of them is served from a few pieces, whose pages are mapped already (fresh pages cost a page fault each,
    which on some machines is more than decompressing what goes into them). Safe to share between threads.
    """

    def __init__(self, num_bytes: int) -> None:
        self._type = ctypes.c_uint8 * num_bytes
        self._free: deque[bytearray] = deque(maxlen=MAX_FREE)

    def lend(self) -> np.ndarray:
        """uint8 (num_bytes,), of any content."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray(ctypes.sizeof(self._type))
        lease = self._type.from_buffer(memory)  # every view refers to it, directly or not, and it to the memory
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.frombuffer(memoryview(lease), np.uint8)
