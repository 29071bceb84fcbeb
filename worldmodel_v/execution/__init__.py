"""Where the tasks of collecting and encoding run: the seam (`executor`), in this process (`here`), in one beside it
(`apart`), on Ray (`ray_pool`).

All else about Ray is here too: the connection to a cluster (`connection`), its metrics (`metrics`), its errors (`ray_errors`).
"""

from worldmodel_v.execution.apart import Apart
from worldmodel_v.execution.executor import Executor, Failure, map_tasks, try_task
from worldmodel_v.execution.here import Here
from worldmodel_v.execution.ray_pool import RayPool
from worldmodel_v.execution.settings import WorkerSettings, refuse_idle_address

__all__ = ["Apart", "Executor", "Failure", "Here", "RayPool", "WorkerSettings", "map_tasks", "refuse_idle_address", "try_task"]
