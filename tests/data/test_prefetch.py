"""Running an iterator ahead of its consumer: order, errors, early ends."""

import threading
from collections.abc import Iterator

import pytest

from worldmodel_v.data.prefetch import prefetch


class Source:
    """Counts up to `length`, then raises `error` if there is one; knows whether and in which thread it was closed."""

    def __init__(self, length: int, error: BaseException | None = None) -> None:
        self.length, self.error = length, error
        self.position = 0
        self.closed_in: list[str] = []

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.position == self.length:
            raise self.error or StopIteration
        self.position += 1
        return self.position - 1

    def close(self) -> None:
        self.closed_in.append(threading.current_thread().name)


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 100])
@pytest.mark.parametrize("length", [0, 1, 50])
def test_every_item_comes_once_and_in_order(depth: int, length: int) -> None:
    assert list(prefetch(iter(range(length)), depth)) == list(range(length))
    assert prefetch_threads() == []


def test_none_and_exceptions_are_items_like_any_other() -> None:
    error = ValueError("an item, not raised")
    assert list(prefetch(iter([None, error, None]), depth=2)) == [None, error, None]


def test_an_error_comes_after_the_items_before_it_and_is_the_very_error() -> None:
    error = RuntimeError("the fourth cannot be had")
    source = Source(3, error)
    items = prefetch(source, depth=10)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError) as caught:
        next(items)
    assert caught.value is error
    assert source.closed_in == ["prefetch"]
    assert prefetch_threads() == []


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_early_ends_the_thread_and_closes_the_source_in_it(taken: int) -> None:
    source = Source(10**9)
    items = prefetch(source, depth=2)
    assert [next(items) for _ in range(taken)] == list(range(taken))
    assert len(prefetch_threads()) == 1
    items.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == []
    assert source.closed_in == ["prefetch"]


def test_it_runs_at_most_depth_items_and_one_in_hand_ahead() -> None:
    source = Source(10**9)
    items = prefetch(source, depth=3)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert source.position <= 1 + 3 + 1


def test_a_source_that_cannot_be_closed_is_let_be() -> None:
    items = prefetch(iter(range(10**9)), depth=1)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == []


def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    source = Source(3)
    items = prefetch(source, depth=2)
    assert prefetch_threads() == []
    assert source.position == 0
    assert list(items) == [0, 1, 2]
