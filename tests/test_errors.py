"""Every error is documented, leaves with a known exit code, and survives its way back from a worker."""

import inspect
import pickle

import pytest

from worldmodel_v import errors
from worldmodel_v.errors import UsageError, WorldModelError

DEFINED = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
CLASSES = [cls for cls in DEFINED if issubclass(cls, WorldModelError)]


def test_the_module_holds_nothing_but_errors() -> None:
    assert len(CLASSES) > 10
    assert CLASSES == DEFINED


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_documented_in_its_own_words(cls: type[WorldModelError]) -> None:
    assert cls.__doc__ is not None
    assert len(cls.__doc__) > 20
    assert [other for other in CLASSES if other.__doc__ == cls.__doc__] == [cls]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_exit_code_is_2_for_what_was_asked_and_1_for_work_that_failed(cls: type[WorldModelError]) -> None:
    assert cls.exit_code == (2 if issubclass(cls, UsageError) else 1)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickling_with_its_message(cls: type[WorldModelError]) -> None:
    error = pickle.loads(pickle.dumps(cls("a/b: what, where; what to do")))
    assert type(error) is cls
    assert str(error) == "a/b: what, where; what to do"
    assert error.exit_code == cls.exit_code
