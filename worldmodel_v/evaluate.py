"""The stage's function by its own name: `worldmodel_v.evaluate(…)`; see `worldmodel_v.evaluation`."""

from worldmodel_v import evaluation
from worldmodel_v.evaluation import *  # noqa: F403
from worldmodel_v.one_name import stands_for

stands_for(__name__, evaluation.evaluate, evaluation)
