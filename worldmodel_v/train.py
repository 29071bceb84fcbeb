"""The stage's function by its own name: `worldmodel_v.train(…)`; see `worldmodel_v.training`."""

from worldmodel_v import training
from worldmodel_v.one_name import stands_for
from worldmodel_v.training import *  # noqa: F403

stands_for(__name__, training.train, training)
