"""Run an iterator ahead of its consumer, in a thread."""

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(source: Iterator[Item], depth: int) -> Generator[Item]:
    """Yield what `source` yields, up to `depth` items ahead; an error in `source` is raised here, after the items before it.

    When the consumer stops early, the thread closes `source` and ends, and the consumer waits for that.
    """
    queue: Queue[tuple[Item | None, BaseException | None]] = Queue(maxsize=depth)
    stopped = Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                queue.put((item, error), timeout=0.05)
            except Full:
                continue
            return

    def produce() -> None:
        try:
            for item in source:
                put(item, None)
                if stopped.is_set():
                    break
            else:
                put(None, StopIteration())
        except BaseException as error:
            put(None, error)
        finally:
            if hasattr(source, "close"):
                source.close()

    thread = Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
