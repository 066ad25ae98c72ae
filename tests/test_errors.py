"""The exception family, and the two places where messages are put together."""

from __future__ import annotations

import pytest

from striate import errors
from striate.errors import DataError, GeometryError, StriateError, UnknownNameError, describing, unknown_name

BUILT_IN_PARENTS = [
    ("GeometryError", ValueError),
    ("NotationError", ValueError),
    ("UnknownNameError", LookupError),
    ("AlgorithmError", ValueError),
    ("OptionError", ValueError),
    ("DataError", ValueError),
    ("CheckpointError", ValueError),
    ("OutputError", OSError),
    ("TrainingError", ArithmeticError),
    ("WrongResultError", ArithmeticError),
    ("OutputError", OSError),
    ("TrainingError", ArithmeticError),
]


@pytest.mark.parametrize(("name", "parent"), BUILT_IN_PARENTS)
def test_every_exception_is_of_the_family_and_of_the_built_in_kind_that_fits(
    name: str, parent: type[Exception]
) -> None:
    error = getattr(errors, name)
    assert issubclass(error, StriateError)
    assert issubclass(error, parent)


def test_the_table_of_exceptions_is_complete() -> None:
    family = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, StriateError)
    }
    assert family == {"StriateError", *(name for name, _ in BUILT_IN_PARENTS)}


def test_describing_adds_the_action_and_what_was_known() -> None:
    with pytest.raises(GeometryError) as caught, describing("building Conv2d(3, 8, 0)", stride=2, padding="same"):
        raise GeometryError("kernel must be at least 1, got kernel=0.")
    assert str(caught.value) == (
        "While building Conv2d(3, 8, 0):\n"
        "  kernel must be at least 1, got kernel=0.\n"
        "  Known so far: stride=2, padding='same'."
    )
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)  # one error, not a chain of two


def test_describing_says_nothing_of_known_values_where_there_are_none() -> None:
    with pytest.raises(GeometryError) as caught, describing("reading a window"):
        raise GeometryError("stride must be at least 1, got stride=0.")
    assert str(caught.value) == "While reading a window:\n  stride must be at least 1, got stride=0."


def test_describing_inside_describing_reads_from_the_outside_in() -> None:
    with pytest.raises(GeometryError) as caught, describing("building a network"), describing("building conv1", axes=2):
        raise GeometryError("kernel must be at least 1, got kernel=0.")
    assert str(caught.value) == (
        "While building a network:\n"
        "  While building conv1:\n"
        "  kernel must be at least 1, got kernel=0.\n"
        "  Known so far: axes=2."
    )


@pytest.mark.parametrize("error", [DataError("cat.png is no image."), ValueError("3"), unknown_name("word", "a", "b")])
def test_describing_lets_every_other_exception_pass_untouched(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, describing("building Conv2d(3, 8, 3)", stride=2):
        raise error
    assert caught.value is error


UNKNOWN_NAMES = [
    (
        ("algorithm", "vendr", ["vendor", "reference"]),
        "No algorithm is called 'vendr'. Did you mean 'vendor'? Known: reference, vendor.",
    ),
    (("network", "xyz", ["vgg16", "lenet5"]), "No network is called 'xyz'. Known: lenet5, vgg16."),
    (("padding", 7, ["valid"]), "No padding is called 7. Known: valid."),
]


@pytest.mark.parametrize(("arguments", "message"), UNKNOWN_NAMES)
def test_unknown_name_suggests_the_nearest_and_lists_all_in_order(
    arguments: tuple[str, object, list[str]], message: str
) -> None:
    error = unknown_name(*arguments)
    assert isinstance(error, UnknownNameError)
    assert str(error) == message
