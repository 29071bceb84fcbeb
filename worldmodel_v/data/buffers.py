"""Memory for batches that is reused, but never while something still refers to it."""

import ctypes
import weakref
from collections import deque

import numpy as np

MAX_FREE = 16


class Buffers:
    """Lends pieces of memory of one size. A piece returns by itself when nothing refers to it any more.

    `lend` gives an ordinary array. Its memory is lent again only when the array, its views and the tensors over it are all
    gone. So a consumer that keeps every batch gets new memory for each. A consumer that drops its batches gets the same few
    pieces again, whose pages are mapped already. (A new page costs a page fault, which on some machines costs more than
    decompressing the page's content.) Safe to share between threads.
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
        lease = self._type.from_buffer(memory)  # every view refers to the lease, and the lease to the memory
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.frombuffer(memoryview(lease), np.uint8)
