"""The options of training, in one validated place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import OptionError, unknown_name

RATES = {"adamw": 6e-3, "momentum": 0.05, "sgd": 0.1}
DECAYS = {"adamw": 0.1, "momentum": 5e-4, "sgd": 5e-4}


def _listed(table: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} for {name}" for name, value in table.items())


Whole = Annotated[int, Field(ge=1)]


class Options(BaseModel):
    """How to train. Every field is an option of :func:`train` and of ``striate train``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(15, ge=1, description="Times that every training picture is seen.")
    batch_size: Whole | Literal["full"] = Field(
        128, description='Pictures per step: 1 is stochastic gradient descent, "full" the whole set at once.'
    )
    optimizer: Literal["adamw", "momentum", "sgd"] = Field("adamw", description="How a gradient becomes a step.")
    learning_rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description=f"Its peak; not given, {_listed(RATES)}."
    )
    schedule: Literal["one-cycle", "constant"] = Field(
        "one-cycle", description="One-cycle rises over the first quarter and falls to zero; constant stays."
    )
    loss: Literal["softmax", "svm"] = Field("softmax", description="Cross-entropy, or the multiclass hinge.")
    weight_decay: float | None = Field(
        None, ge=0, allow_inf_nan=False, description=f"Pull of the weights towards zero; not given, {_listed(DECAYS)}."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Of the arithmetic in the network.")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Of every random choice: first weights, order, dropout, held-out pictures."
    )
    device: str = Field("auto", description='"auto" takes a GPU if there is one.')
    filters: int | None = Field(None, ge=1, description="Of every CONV that the text leaves open.")
    hidden: int | None = Field(None, ge=1, description="Features of every FC that the text leaves open, but the last.")
    size: tuple[Whole, Whole] | None = Field(None, description="Height and width that pictures are brought to.")

    def settled(self) -> dict[str, Any]:
        """What is really used: the defaults that depend on the optimizer filled in, the rest left out."""
        chosen = {"learning_rate": self.rate, "weight_decay": self.decay}
        return self.model_dump(mode="json", exclude_none=True) | chosen

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate if self.learning_rate is not None else RATES[self.optimizer]

    @property
    def decay(self) -> float:
        """The weight decay."""
        return self.weight_decay if self.weight_decay is not None else DECAYS[self.optimizer]


def options_of(given: Mapping[str, Any]) -> Options:
    """Check options.

    Raises:
        OptionError: An option is unknown, or its value is not admitted; the message lists every such option.
    """
    try:
        return Options(**given)
    except ValidationError as error:
        found = dict.fromkeys(_sentence(problem) for problem in error.errors(include_url=False))
        raise OptionError("\n  ".join(["training cannot use", *found])) from None


def _sentence(problem: Any) -> str:
    name, message = problem["loc"][0], problem["msg"]
    if problem["type"] == "extra_forbidden":
        return f"{name}: {unknown_name('training option', name, Options.model_fields)}"
    if name == "batch_size":
        message = "input should be a whole number of at least 1, or 'full'"
    return f"{name}={problem['input']!r}: {message[0].lower()}{message[1:]}."
