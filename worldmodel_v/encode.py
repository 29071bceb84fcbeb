"""The stage's function by its own name: `worldmodel_v.encode(…)`; see `worldmodel_v.encoding`."""

from worldmodel_v import encoding
from worldmodel_v.encoding import *  # noqa: F403
from worldmodel_v.one_name import stands_for

stands_for(__name__, encoding.encode, encoding)
