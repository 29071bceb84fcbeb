"""An executor of a user's own: the threads of this process collect rollouts and encode them."""

import itertools
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from worldmodel_v import CollectConfig, EncodeConfig
from worldmodel_v.collection import collect
from worldmodel_v.encoding import encode
from worldmodel_v.execution import try_task


class Threads:
    """Does tasks in so many threads, with at most two for each in flight."""

    def __init__(self, num_threads):
        self.num_threads = num_threads

    def try_tasks(self, setup, tasks, *, attempts, progress, tally):
        worker, tasks = threading.local(), iter(tasks)

        def work(task):
            if not hasattr(worker, "run"):
                worker.run = setup()
            return task, try_task(worker.run, task, attempts=attempts, progress=progress, tally=tally)

        with ThreadPoolExecutor(self.num_threads, "worker") as threads:
            in_flight = {threads.submit(work, task) for task in itertools.islice(tasks, 2 * self.num_threads)}
            while in_flight:
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                in_flight |= {threads.submit(work, task) for task in itertools.islice(tasks, len(done))}


def collect_and_encode(rollouts: CollectConfig, latents: EncodeConfig, threads: Threads) -> None:
    collect(rollouts, executor=threads)
    encode(latents, executor=threads)
