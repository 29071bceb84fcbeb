"""Memory that is lent: never twice at once, and again when nobody looks at it."""

import threading

import numpy as np
import torch

from worldmodel_v.data.buffers import MAX_FREE, Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_what_is_held_is_not_lent_again() -> None:
    buffers = Buffers(1000)
    held = [buffers.lend() for _ in range(50)]
    assert {(array.dtype, array.shape) for array in held} == {(np.dtype(np.uint8), (1000,))}
    for number, array in enumerate(held):
        array[:] = number
    assert [set(array.tolist()) for array in held] == [{number} for number in range(50)]


def test_what_is_let_go_is_lent_again() -> None:
    buffers = Buffers(1000)
    first = buffers.lend()
    where = address(first)
    del first
    assert address(buffers.lend()) == where


def test_a_view_or_a_tensor_over_it_holds_it() -> None:
    buffers = Buffers(24)
    lent = buffers.lend()
    where = address(lent)
    view = lent.reshape(2, 3, 4)[1, :2]
    del lent
    assert address(buffers.lend()) != where
    tensor = torch.from_numpy(view).flatten()[2:].view(2, 3)
    del view
    assert address(buffers.lend()) != where
    del tensor
    assert where in {address(array) for array in [buffers.lend() for _ in range(3)]}


def test_only_a_few_pieces_wait_to_be_lent() -> None:
    buffers = Buffers(10)
    held = [buffers.lend() for _ in range(5 * MAX_FREE)]
    held.clear()
    assert len(buffers._free) == MAX_FREE


def test_threads_never_share_a_piece() -> None:
    buffers = Buffers(5000)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            array = buffers.lend()
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
