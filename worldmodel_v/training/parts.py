"""Training on a CPU: a batch is cut into parts, one for each core, and each part has a thread that does forward and backward.

PyTorch splits each operator among its threads, and they wait for each other about five hundred times a step. If other programs
use the cores too, one thread is nearly always without its core, and all others wait for it. Here each thread computes its rows
alone, and the threads wait for each other once or twice a step. Each has a copy of the autoencoder. The copies share the memory
of the parameters; gradients and buffers are their own. Gradients and figures are added in the order of the parts. So the
weights depend on the number of threads, but not on what else runs on the machine.

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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

import torch

from worldmodel_v.autoencoders import Autoencoder, Batch, Loss
from worldmodel_v.device import torch_threads
from worldmodel_v.errors import ModelFailed

Objective = Callable[[Batch], Loss]
Terms = dict[str, torch.Tensor | float]

SMALLEST_PART = 16
"""Rows. In a smaller part, the fixed cost of an operator becomes a large share."""

MOST_PARTS = 16
"""A part holds Python's lock for about 3 ms, so with more parts, threads would wait for the lock. On a machine with more cores,
the operators of each part are split among several cores."""


def num_parts(num_rows: int) -> int:
    """The number of parts of a batch: one for each of PyTorch's threads, but no part smaller than `SMALLEST_PART`."""
    return max(1, min(torch.get_num_threads(), MOST_PARTS, num_rows // SMALLEST_PART))


class Parts:
    """An autoencoder, its copies and their threads, one for each part of a batch. A training makes them once."""

    def __init__(
        self,
        model: Autoencoder,
        number: int,
        objective_of: Callable[[Autoencoder], Objective],
        precision: Callable[[], AbstractContextManager],
    ) -> None:
        """`objective_of(copy)` computes each of `number` parts, within `precision()`. With 1, the batch stays whole, and
        PyTorch splits its operators."""
        self._models = [model, *(_copy_of_same_parameters(model) for _ in range(number - 1))]
        self._objectives = [objective_of(each) for each in self._models]
        self._precision = precision
        self._threads_each = max(1, torch.get_num_threads() // number)
        self._threads = ThreadPoolExecutor(number, "part", torch.set_num_threads, (self._threads_each,))

    def few_threads(self) -> AbstractContextManager[None]:
        """Within the block, this thread splits operators among as many threads as a part does. For all of a step."""
        return torch_threads(self._threads_each)

    def backward(self, batch: Batch) -> Terms:
        """Compute the gradients of the batch's loss into the model's parameters; returns `loss` and its figures, detached.

        Call it within `few_threads`. Raises the error of a part that fails.
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
            minimised, figures = self._objectives[number](batch)[:2]  # the others would keep reconstructions in memory
        if minimised.dim():
            got = f"the shape {tuple(minimised.shape)}"
            raise ModelFailed("the autoencoder's loss is no scalar", expected="the mean over the batch", got=got)
        (minimised * weight).backward()
        terms = {"loss": minimised, **figures}
        return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in terms.items()}


class _Meeting:
    """The parts of one batch. Their threads wait here for each other's means."""

    def __init__(self, batch: Batch, number: int) -> None:
        self._batch, size = batch, len(batch.x)
        bounds = [size * part // number for part in range(number + 1)]
        self._rows = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        self.weights = [(rows.stop - rows.start) / size for rows in self._rows]
        self._values: list[torch.Tensor] = [torch.empty(0)] * number
        self._barrier = threading.Barrier(number, self._take_mean)

    def part(self, number: int) -> Batch:
        """The rows of part `number`. Its `across` waits for the other parts."""
        rows, whole = self._rows[number], self._batch
        condition, noise = (None if values is None else values[rows] for values in (whole.condition, whole.noise))
        across = functools.partial(self._across, number)
        return whole._replace(x=whole.x[rows], condition=condition, noise=noise, across=across)

    def mean(self, values: Sequence[Any]) -> Any:
        """The mean over all rows, from the mean of each part. Plain numbers are the same in all parts."""
        if not isinstance(values[0], torch.Tensor):
            return values[0]
        first, *others = (value * weight for value, weight in zip(values, self.weights, strict=True))
        return sum(others, first)

    def end(self) -> None:
        """End all waiting: a thread that waits now or later gets a BrokenBarrierError."""
        self._barrier.abort()

    def _across(self, number: int, value: torch.Tensor) -> torch.Tensor:
        self._values[number] = value.detach()
        self._barrier.wait()
        return self._mean + (value - value.detach())

    def _take_mean(self) -> None:
        """Called in one of the threads when all have arrived."""
        self._mean = self._batch.across(self.mean(self._values))


def _copy_of_same_parameters(model: Autoencoder) -> Autoencoder:
    """A copy whose parameters share the model's memory, with gradients of their own."""
    same = {id(each): torch.nn.Parameter(each.detach(), each.requires_grad) for each in model.parameters()}
    return copy.deepcopy(model, same)


@torch.no_grad()
def _follow(copied: Autoencoder, model: Autoencoder) -> None:
    """Copy the model's mode and buffers."""
    copied.train(model.training)
    for own, first in zip(copied.buffers(), model.buffers(), strict=True):
        own.copy_(first)


def _add_gradients(model: Autoencoder, copied: Autoencoder) -> None:
    """Add the copy's gradients to the model's, and clear them."""
    for whole, part in zip(model.parameters(), copied.parameters(), strict=True):
        if whole.grad is not None and part.grad is not None:
            whole.grad.add_(part.grad)
    copied.zero_grad(set_to_none=True)


def _results(futures: list[Future[Terms]]) -> list[Terms]:
    """The results of all parts. Raises the first error that is not a mere end of waiting."""
    wait(futures)
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]
