"""A batch in parts of rows, one for each core, which threads take through the forward and the backward pass at once.

PyTorch splits each operator among its threads, which wait for each other after it, some five hundred times a step. Where other
programs use the cores too, one of them nearly always waits for its time slice, and all the others for it. Here a thread
computes its rows alone, and they meet once or twice a step. Each has a copy of the autoencoder, whose parameters are the same
memory and whose gradients and buffers are its own; gradients and figures are added in the order of the parts. So the weights
depend on the number of threads, and on nothing that else runs on the machine.

With four busy programs on each of two cores (`benchmarks/shared_machine.py`), this keeps 0.89 of its fair share; alone it takes
9.8 steps a second, where operators that are split among threads take 9.2 and keep 0.15. Rejected: one thread, 0.50; operators
split among threads that sleep while they wait (OMP_WAIT_POLICY=passive), 0.62, and 7.3 steps a second alone; a number of
threads that follows the load, which changes the order of sums and so the weights; shorter time slices (sched_setattr), which
gained nothing.
"""

import copy
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from worldmodel_v.autoencoders import Autoencoder, Batch, Loss

Objective = Callable[[Batch], Loss]
Terms = dict[str, torch.Tensor | float]

SMALLEST_PART = 16
"""Rows: with fewer, what an operator costs by itself shows."""

MOST_PARTS = 16
"""With more, threads would wait for each other at Python's lock, which a part needs for some 3 ms; with more cores than that,
each part's operators are split among some of them."""


def num_parts(num_rows: int) -> int:
    """In how many parts a batch of so many rows is computed: one for each of PyTorch's threads, if none becomes too small."""
    return max(1, min(torch.get_num_threads(), MOST_PARTS, num_rows // SMALLEST_PART))


class Parts:
    """An autoencoder and its copies, one for each part of a batch, and their threads; made once for a training."""

    def __init__(
        self,
        model: Autoencoder,
        number: int,
        objective_of: Callable[[Autoencoder], Objective],
        precision: Callable[[], AbstractContextManager],
    ) -> None:
        """`number` parts, each computed by `objective_of` a copy within `precision()`; 1 is the batch as it is, whose operators
        are split."""
        self._models = [model, *(_copy_of_same_parameters(model) for _ in range(number - 1))]
        self._objectives = [objective_of(each) for each in self._models]
        self._precision = precision
        self._threads_each = max(1, torch.get_num_threads() // number)
        self._threads = ThreadPoolExecutor(number, "part", torch.set_num_threads, (self._threads_each,))

    @contextmanager
    def few_threads(self) -> Iterator[None]:
        """Within it, an operator is split among no more threads than in a part: for all that a step computes."""
        num_threads = torch.get_num_threads()
        torch.set_num_threads(self._threads_each)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)  # what the threads set for themselves holds for later threads too

    def backward(self, batch: Batch) -> Terms:
        """Leave the gradients of the batch's loss in the model's parameters; returns `loss` and its figures, detached.

        Within `few_threads`. Raises what a part raises.
        """
        model, *copies = self._models
        if not copies:
            return self._backward(0, batch, 1.0)
        for each in copies:
            _follow(each, model)
        meeting = _Meeting(batch, len(self._models))
        terms = _results([self._threads.submit(self._meet, meeting, number) for number in range(len(self._models))])
        for each in copies:
            _add_gradients(model, each)
        return {name: meeting.mean([part[name] for part in terms]) for name in terms[0]}

    def _meet(self, meeting: "_Meeting", number: int) -> Terms:
        try:
            return self._backward(number, meeting.part(number), meeting.weights[number])
        except BaseException:
            meeting.end()
            raise

    def _backward(self, number: int, batch: Batch, weight: float) -> Terms:
        with self._precision():
            loss = self._objectives[number](batch)
        (loss.minimised * weight).backward()
        terms = {"loss": loss.minimised, **loss.figures}
        return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in terms.items()}


class _Meeting:
    """The parts of one batch, and where their threads wait for each other's means."""

    def __init__(self, batch: Batch, number: int) -> None:
        self._batch, size = batch, len(batch.x)
        bounds = [size * part // number for part in range(number + 1)]
        self._rows = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        self.weights = [(rows.stop - rows.start) / size for rows in self._rows]
        self._values: list[torch.Tensor] = [torch.empty(0)] * number
        self._barrier = threading.Barrier(number, self._take_mean)

    def part(self, number: int) -> Batch:
        """Its rows; `across` waits for the other parts."""
        rows, whole = self._rows[number], self._batch
        condition, noise = (None if values is None else values[rows] for values in (whole.condition, whole.noise))
        across = functools.partial(self._across, number)
        return whole._replace(x=whole.x[rows], condition=condition, noise=noise, across=across)

    def mean(self, values: Sequence[Any]) -> Any:
        """Of each part's mean over its rows that over all rows: tensors; of plain numbers, which all parts share, the first."""
        if not isinstance(values[0], torch.Tensor):
            return values[0]
        first, *others = (value * weight for value, weight in zip(values, self.weights, strict=True))
        return sum(others, first)

    def end(self) -> None:
        """Nobody waits any more: who does, or would, has a BrokenBarrierError."""
        self._barrier.abort()

    def _across(self, number: int, value: torch.Tensor) -> torch.Tensor:
        self._values[number] = value.detach()
        self._barrier.wait()
        return self._mean + (value - value.detach())

    def _take_mean(self) -> None:
        """In one of the threads, when all have come."""
        self._mean = self._batch.across(self.mean(self._values))


def _copy_of_same_parameters(model: Autoencoder) -> Autoencoder:
    """A copy whose parameters are the model's memory, with gradients of their own."""
    same = {id(each): torch.nn.Parameter(each.detach(), each.requires_grad) for each in model.parameters()}
    return copy.deepcopy(model, same)


@torch.no_grad()
def _follow(copied: Autoencoder, model: Autoencoder) -> None:
    """Take over the model's mode and buffers."""
    copied.train(model.training)
    for own, first in zip(copied.buffers(), model.buffers(), strict=True):
        own.copy_(first)


def _add_gradients(model: Autoencoder, copied: Autoencoder) -> None:
    """Move the copy's gradients to the model's."""
    for whole, part in zip(model.parameters(), copied.parameters(), strict=True):
        if whole.grad is not None and part.grad is not None:
            whole.grad.add_(part.grad)
    copied.zero_grad(set_to_none=True)


def _results(futures: list[Future[Terms]]) -> list[Terms]:
    """What all have computed; raises the error that ended the others' waiting."""
    wait(futures)
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]
