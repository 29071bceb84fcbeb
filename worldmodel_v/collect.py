"""The stage's function by its own name: `worldmodel_v.collect(…)`; see `worldmodel_v.collection`."""

from worldmodel_v import collection
from worldmodel_v.collection import *  # noqa: F403
from worldmodel_v.one_name import stands_for

stands_for(__name__, collection.collect, collection)
