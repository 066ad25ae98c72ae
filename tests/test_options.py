"""Options of training: defaults, limits and messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from striate.errors import OptionError
from striate.options import Options, options_of, read_config

BAD: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs=0: input should be greater than or equal to 1."),
    ({"learning_rate": -1.0}, "learning_rate=-1.0: input should be a finite number above 0, or 'find'."),
    ({"learning_rate": float("nan")}, "learning_rate=nan: input should be a finite number above 0, or 'find'."),
    ({"optimizer": "adam"}, "optimizer='adam': input should be 'adamw', 'momentum' or 'sgd'."),
    ({"loss": "l1"}, "loss='l1': input should be 'softmax', 'svm', 'mse', 'dice' or 'softmax+dice'."),
    ({"seed": -1}, "seed=-1: input should be greater than or equal to 0."),
    ({"size": (0, 8)}, "size=(0, 8): input should be a whole number of at least 1, or one for each axis."),
    ({"patch": 0}, "patch=0: input should be a whole number of at least 1, or one for each axis."),
    ({"patch": 16.0}, "patch=16.0: input should be a whole number of at least 1, or one for each axis."),
    ({"patch": (16, 0)}, "patch=(16, 0): input should be a whole number of at least 1, or one for each axis."),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[str(given) for given, _ in BAD])
def test_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        options_of(given)
    assert str(caught.value) == f"training cannot use\n  {message}"


def test_an_unknown_option() -> None:
    with pytest.raises(OptionError) as caught:
        options_of({"epoch": 3})
    assert str(caught.value) == (
        "training cannot use\n  epoch: No training option is called 'epoch'. Did you mean 'epochs'? "
        f"Known: {', '.join(sorted(Options.model_fields))}."
    )


def test_a_batch_size_that_is_neither_a_number_nor_full() -> None:
    with pytest.raises(OptionError):
        options_of({"batch_size": 0})
    with pytest.raises(OptionError) as caught:
        options_of({"batch_size": "all"})
    assert str(caught.value) == (
        "training cannot use\n  batch_size='all': input should be a whole number of at least 1, or 'full'."
    )


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        options_of({"epochs": 0, "seed": -1})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("optimizer", "rate", "decay"), [("adamw", 6e-3, 0.1), ("momentum", 0.05, 5e-4), ("sgd", 0.1, 5e-4)]
)
def test_rate_and_decay_depend_on_the_optimizer_unless_given(optimizer: str, rate: float, decay: float) -> None:
    options = options_of({"optimizer": optimizer})
    assert (options.rate, options.decay) == (rate, decay)
    assert options.settled()["learning_rate"] == rate
    own = options_of({"optimizer": optimizer, "learning_rate": 0.5, "weight_decay": 0.0})
    assert (own.rate, own.decay) == (0.5, 0.0)
    assert (own.settled()["learning_rate"], own.settled()["weight_decay"]) == (0.5, 0.0)


def test_a_single_value_is_a_list_of_one() -> None:
    options = options_of({"patch": 16, "log": "csv", "milestones": 0.3, "schedule": "step"})
    assert (options.patch, options.log, options.milestones) == ((16,), ("csv",), (0.3,))
    assert options_of({"patch": None}).patch is None


def test_a_patch_of_a_config_file_may_be_one_number(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("patch = 16")
    assert options_of(read_config(path)).patch == (16,)
    path.write_text("patch = [16, 8]")
    assert options_of(read_config(path)).patch == (16, 8)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('data = ["a"]', "data=['a']: expected a text, as in data = \"photos\"."),
        ("out = 5", 'out=5: expected a text, as in out = "runs/first".'),
        ("network = true", 'network=True: expected a text, as in network = "lenet5".'),
    ],
)
def test_a_config_file_names_in_texts(tmp_path: Path, written: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(written)
    with pytest.raises(OptionError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: {message}"


def test_options_survive_json() -> None:
    options = options_of({"batch_size": "full", "size": (8, 9), "learning_rate": 0.1})
    assert Options.model_validate_json(options.model_dump_json()) == options
