"""Computes batches at once on a CPU, each in a thread, and gives the results in order.

PyTorch splits each operator among its threads, which then wait for each other many times a batch, and if other programs use the
cores too, nearly always for one that is without its core (`train.parts`). A thread that computes a whole batch waits for
nobody, and the results do not depend on the number of threads. Rejected: the same for fewer batches than threads, because all
cores together are done sooner with a single batch.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8
"""Each holds the activations of a batch. On a machine with more cores, each splits its operators among several cores."""


def num_threads(num_batches: int, device: torch.device) -> int:
    """How many batches to compute at once; 1 on a GPU, and if there are fewer batches than threads."""
    wanted = min(torch.get_num_threads(), MOST_THREADS)
    return wanted if device.type == "cpu" and num_batches >= wanted else 1


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], number: int) -> Generator[Result]:
    """Yield the result of each item, in order, of up to `number` threads and as many items ahead; 1 means the caller's thread.

    Raises the error of an item in its place. Whoever stops early waits for the items that are being computed.
    """
    if number == 1:
        yield from map(work, items)
        return
    under_way: deque[Future[Result]] = deque()
    of_caller = torch.get_num_threads()
    threads = ThreadPoolExecutor(number, "evaluate", torch.set_num_threads, (max(1, of_caller // number),))
    try:
        for item in items:
            under_way.append(threads.submit(work, item))
            if len(under_way) > number:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(of_caller)  # what the threads set for themselves holds for later threads too
