"""The options of training, in one validated place: keywords of ``train``, flags, and the fields of a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .errors import OptionError, unknown_name

RATES = {"adamw": 6e-3, "momentum": 0.05, "sgd": 0.1}
DECAYS = {"adamw": 0.1, "momentum": 5e-4, "sgd": 5e-4}
SEQUENCES = {"log", "milestones", "patch"}
MASK_LOSSES = ("softmax", "dice", "softmax+dice")


def _listed(table: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} for {name}" for name, value in table.items())


Whole = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


class Options(BaseModel):
    """How to train. Every field is an option of :func:`train` and of ``striate train``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Whole = Field(15, description="Times that every training example is seen.")
    steps: Whole | None = Field(None, description="Steps of the optimiser in all, in place of epochs.")
    minutes: Positive | None = Field(
        None, description="Time after which this call keeps the run and stops, to be resumed or used as it is."
    )
    batch_size: Whole | Literal["full"] = Field(
        128, description='Examples per step: 1 is stochastic gradient descent, "full" the whole set at once.'
    )
    accumulate: Whole = Field(1, description="Parts in which a batch is computed, to save memory.")
    optimizer: Literal["adamw", "momentum", "sgd"] = Field("adamw", description="How a gradient becomes a step.")
    learning_rate: Positive | Literal["find"] | None = Field(
        None, description=f'Its peak; "find" runs a short range test; not given, {_listed(RATES)}.'
    )
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = Field(
        "one-cycle",
        description="One-cycle rises and falls to zero; cosine falls; step divides by 10 at milestones.",
    )
    warmup: Share | None = Field(
        None, description="Share of all steps in which the rate first rises; not given, 0.25 for one-cycle, else 0."
    )
    milestones: tuple[Share, ...] = Field(
        (0.5, 0.75), description="Shares of all steps at which the step schedule divides the rate by 10."
    )
    loss: Literal["softmax", "svm", "mse", "dice", "softmax+dice"] = Field(
        "softmax",
        description="Cross-entropy, multiclass hinge or squared error; for masks cross-entropy, Dice or both.",
    )
    label_smoothing: Share = Field(0.0, description="Share of the target spread evenly over all classes.")
    class_weights: Literal["none", "balanced"] | tuple[Positive, ...] = Field(
        "none", description='Weight of each class in the loss; "balanced" is the inverse of its frequency.'
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="Every example once an epoch, or drawn with replacement so that classes are equal."
    )
    augment: str = Field(
        "none", description='none, light, standard, strong, or a list such as "shift 4, flip, cutout 8".'
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        strict=True,
        description=f"Pull of the weights towards zero; not given, {_listed(DECAYS)}.",
    )
    clip: Positive | None = Field(None, description="Largest norm of all gradients together; longer ones are scaled.")
    ema: Share | None = Field(
        None, description="Decay of an exponential moving average of the weights, which then is what predicts."
    )
    early_stopping: Whole | None = Field(
        None, description="Epochs without improvement on the validation part after which the run ends."
    )
    validation: Annotated[float, Field(ge=0, le=0.5, strict=True)] = Field(
        0.0, description="Share of the training part held out to choose by, where the data has no such part."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description='"auto" takes bfloat16 where the processor multiplies it faster: AMX, or a GPU since 2020.'
    )
    layout: Literal["auto", "contiguous", "channels-last"] = Field("auto", description="Of the maps in memory.")
    deterministic: Switch = Field(
        False, description="Only algorithms of PyTorch whose results are the same every time."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        strict=True,
        description="Of every random choice: first weights, order, augmentation, held-out examples.",
    )
    device: str = Field("auto", description='"auto" takes a GPU if there is one.')
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="Over several processes: every one holds the network, or only its share of it (FSDP2)."
    )
    weights: str | None = Field(
        None, description="File with weights to start from; the last layer starts anew if the classes are others."
    )
    filters: Whole | None = Field(None, description="Of every CONV that the text leaves open.")
    hidden: Whole | None = Field(None, description="Features of every FC that the text leaves open, but the last.")
    size: Whole | tuple[Whole, ...] | None = Field(None, description="Spatial size that inputs are brought to.")
    patch: tuple[Whole, ...] | None = Field(
        None, description="Size of random patches to train on, for networks of any size; one number for all axes."
    )
    skip_bad: Switch = Field(False, description="Leave unreadable files out, and name them, instead of stopping.")
    stream: Switch | None = Field(None, description="Read files during training; not given, if they fill the memory.")
    workers: int = Field(2, ge=0, strict=True, description="Processes that read files during training.")
    log: tuple[Literal["csv", "tensorboard"], ...] = Field((), description="Figures written besides metrics.jsonl.")
    report: Switch = Field(True, description="Write report.html at the end.")
    checkpoint_minutes: Positive = Field(10.0, description="Within an epoch, time between two checkpoints.")

    @model_validator(mode="before")
    @classmethod
    def _sequences(cls, given: dict[str, Any]) -> dict[str, Any]:
        """TOML and JSON have lists; a single value of what is always a list is a list of one."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        single = {name for name in SEQUENCES & given.keys() if isinstance(given[name], str | int | float)}
        return given | {name: (given[name],) for name in single}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = self.model_fields_set
        if self.sampling == "balanced" and self.class_weights != "none":
            raise PydanticCustomError("twice", "sampling=balanced and class_weights both make up for rare classes; "
                                               "leave one of them out")  # fmt: skip
        if "milestones" in given and self.milestones != (0.5, 0.75) and self.schedule != "step":
            raise PydanticCustomError("milestones", "milestones belong to schedule=step")
        if self.steps is not None and "epochs" in given and self.epochs != type(self).model_fields["epochs"].default:
            raise PydanticCustomError("both", "steps and epochs both say how long to train; leave one of them out")
        for name, losses in (("label_smoothing", ("softmax", "mse", "softmax+dice")),
                             ("class_weights", ("softmax", "svm", "softmax+dice"))):  # fmt: skip
            if name in given and getattr(self, name) not in (0, "none") and self.loss not in losses:
                raise PydanticCustomError(
                    "loss", f"{name} has no meaning for loss={self.loss}; it belongs to {', '.join(losses)}"
                )
        return self

    def settled(self) -> dict[str, Any]:
        """What is really used: the defaults that depend on the optimizer filled in, what is None left out."""
        rate = "find" if self.learning_rate == "find" else self.rate
        chosen = {"learning_rate": rate, "weight_decay": self.decay}
        settled = self.model_dump(mode="json") | chosen
        return {name: value for name, value in settled.items() if value is not None}

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, and the rate and decay that are used."""
        defaults = type(self)().settled()
        return {name: value for name, value in self.settled().items() if defaults.get(name) != value}

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate if isinstance(self.learning_rate, float) else RATES[self.optimizer]

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
        found = dict.fromkeys(_sentence(problem, given) for problem in error.errors(include_url=False))
        raise OptionError("\n  ".join(["training cannot use", *found])) from None


TEXTS = {"network": "lenet5", "data": "photos", "out": "runs/first"}
"""What a TOML file may say besides options."""


def read_config(path: str | Path) -> dict[str, Any]:
    """What a TOML file says: a network, data and out, and options, whose values are checked when they are used.

    Raises:
        OptionError: It cannot be read, or is no TOML; or one of the three is no text.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as TOML: {error}.") from None
    for name, example in TEXTS.items():
        if not isinstance(found.get(name, ""), str):
            raise OptionError(f'{path}: {name}={found[name]!r}: expected a text, as in {name} = "{example}".')
    return found


def written_config(network: str, data: str | None, options: Options) -> str:
    """The TOML text that trains the same again: the network's text, the data's name, and every option.

    >>> print(written_config("INPUT 1x8x8 -> FC 3", "photos", Options(epochs=2)).splitlines()[0])
    network = "INPUT 1x8x8 -> FC 3"
    """
    named = {"network": network} | ({} if data is None else {"data": data})
    return tomli_w.dumps(named | options.settled())


def number(word: str) -> Any:
    """The number that a word writes, or the word.

    >>> number("3"), number("1e-2"), number("adamw")
    (3, 0.01, 'adamw')
    """
    if re.fullmatch(r"[-+]?[0-9]+", word):
        return int(word)
    return float(word) if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", word, re.IGNORECASE) else word


SYNONYMS = {"lr": "learning_rate", "wd": "weight_decay"}
"""What other libraries call some options."""

ADMITTED = {
    "batch_size": "a whole number of at least 1, or 'full'",
    "learning_rate": "a finite number above 0, or 'find'",
    "size": "a whole number of at least 1, or one for each axis",
    "patch": "a whole number of at least 1, or one for each axis",
    "class_weights": "'none', 'balanced', or one number above 0 for each class",
}


def _sentence(problem: Any, given: Mapping[str, Any]) -> str:
    if not problem["loc"]:
        return f"{problem['msg']}."
    name, message = problem["loc"][0], problem["msg"]
    if problem["type"] == "extra_forbidden":
        return f"{name}: {unknown_name('training option', name, Options.model_fields, SYNONYMS)}"
    if name in ADMITTED:
        return f"{name}={given[name]!r}: input should be {ADMITTED[name]}."
    return f"{name}={problem['input']!r}: {message[0].lower()}{message[1:]}."
