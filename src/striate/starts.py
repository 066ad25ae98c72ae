"""Before the first step: network, data and options brought together, new or as a run was left, or refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint as checkpoints
from . import datasets, feeding, files, loading, notation, zoo
from .alterations import Patch
from .analysis import analyse
from .architecture import DEFAULTS, Architecture
from .augmentation import Augmentation, recipe
from .checkpoint import Checkpoint
from .datasets import Dataset, Normalisation
from .errors import CheckpointError, DataError, OptionError
from .losses import Loss
from .networks import Network, takes_any_size
from .operations import BatchNorm
from .options import Options, options_of
from .prediction import check_classes, load_for, shape_of
from .processes import Group
from .splits import Stored
from .training import Watcher, loss_of

KINDS = {2: "signals", 3: "pictures", 4: "volumes"}


@dataclass(frozen=True)
class Start:
    """Everything that a run needs, settled.

    Args:
        name: What a new folder is called after.
        options: How to train.
        data: The examples.
        source: The data's name or path, so that it is found again from anywhere; None if it was in memory.
        architecture: Every number known.
        normalisation: Of the training examples.
        augmentation: Of the training examples.
        loss: With weights of classes, if the options ask for them.
        checkpoint: Where an interrupted run stands.
    """

    name: str
    options: Options
    data: Dataset
    source: str | None
    architecture: Architecture
    normalisation: Normalisation
    augmentation: Augmentation
    loss: Loss
    checkpoint: Checkpoint | None = None

    @cached_property
    def digest(self) -> str:
        """Of the training examples and their targets."""
        return self.data.train.digest()

    def check_same(self, group: Group) -> None:
        """Refuse data that not all processes see alike: in one of them a file may be missing.

        Raises:
            DataError: A part differs.
        """
        for name, part in self.data.parts.items() if group.size > 1 else ():
            seen = group.gather(lambda part=part: (len(part), part.digest()))  # type: ignore[misc]
            if len(set(seen)) > 1:
                counts = ", ".join(f"{count:,}" for count, _ in seen)
                raise DataError(
                    f"{self.data.name}: the processes see different {name} parts, of {counts} examples; "
                    "all must read the same files."
                )

    @property
    def judged_by(self) -> str:
        """The part by which epochs are compared."""
        return "test" if self.data.validation is None else "validation"

    def network(self) -> tuple[Network, list[str]]:
        """The network with its first weights, and what to know of them: random, of a file, or those of the run.

        Raises:
            OptionError: It needs more memory than there is.
            CheckpointError: Weights do not fit.
        """
        try:
            with feeding.randomness(self.options.seed, -1):
                network = Network(self.architecture)
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            count = analyse(self.architecture).totals.parameters
            raise OptionError(f"the network's {count:,} parameters need more memory than there is.") from None
        if self.checkpoint is not None:
            checkpoints.fit(network, self.checkpoint.raw or self.checkpoint.weights)
        elif self.options.weights is not None:
            anew = loading.transfer(network, self.options.weights, self.data.classes)
            return network, [f"{name} starts anew: the classes of {self.options.weights} are others." for name in anew]
        return network, []


def fresh(network: Any, data: Any, given: Mapping[str, Any], progress: Watcher | None) -> Start:
    """A new run.

    Raises:
        OptionError: Network, data and options do not go together.
        DataError: The data cannot be used.
        NotationError: The text cannot be read.
    """
    if network is None or data is None:
        raise OptionError(
            "name a network and a data set to train, as in striate train lenet5 --data fashion-mnist-mini, "
            "or striate.train('lenet5', 'fashion-mnist-mini')."
        )
    options = options_of(given)
    if options.weights is not None:  # found again from anywhere
        weights = Path(options.weights).expanduser().absolute()
        kept = weights / checkpoints.FILE
        options = options.model_copy(update={"weights": str(kept if files.is_file(kept) else weights)})
    if hasattr(network, "architecture") and not isinstance(network, Architecture):
        raise OptionError(
            "train starts weights of its own, from a text, a zoo name or a file, and got a network that has some; "
            "give striate.notation.format(network.architecture) to train its text anew."
        )
    paper = zoo.architecture(network)
    named = not isinstance(network, Architecture) and str(network) in zoo.names()
    if isinstance(data, Dataset):
        check_in_memory(options, data)
        loaded = data
    else:
        loaded = load(data, None if named else paper, options, progress)
    if options.patch is not None and len(options.patch) == 1:
        options = options.model_copy(update={"patch": options.patch * (len(loaded.shape) - 1)})
    masks, count = loaded.task == "masks", len(loaded.classes)
    shape = loaded.shape if options.patch is None else (loaded.shape[0], *options.patch)
    check_axes(paper, loaded)
    if named:
        paper = paper.adapted(shape, count, maps=masks)
    elif masks and paper.ends_open:
        paper = paper.adapted(None, count, maps=True)
    bound = paper.bind(filters=options.filters, hidden=options.hidden)
    known: dict[str, Any] = DEFAULTS | {"input": shape, "classes": count}
    bound = bound.bind(**{name: known[name] for name in bound.open})
    check_fit(bound, loaded, options)
    check_batches(bound, options, len(loaded.train), Group.current())
    name = f"{network if named else 'network'}-{loaded.name}"
    source = None if isinstance(data, Dataset) else source_of(data)
    return _settled(name, options, loaded, source, bound, None)


def _settled(
    name: str, options: Options, data: Dataset, source: str | None, paper: Architecture, found: Checkpoint | None
) -> Start:
    shape = data.shape if options.patch is None else (data.shape[0], *options.patch)
    augmentation = recipe(options.augment, kind_of(data), data.task, shape, len(data.classes))
    if options.patch is not None:
        augmentation = replace(augmentation, steps=(Patch(options.patch), *augmentation.steps))
    if options.early_stopping is not None and data.validation is None:
        raise OptionError(
            f"early_stopping judges by a validation part, and {data.name} has none; hold one out: validation=0.1."
        )
    if options.sampling == "balanced" and data.task == "masks":
        raise OptionError("sampling=balanced draws examples by their class, and masks have many; leave it out.")
    loss = loss_of(options, data)
    loss.check(masks=data.task == "masks", mixed=augmentation.mixes)
    normalisation = found.normalisation if found else Normalisation.of(data.train)
    return Start(name, options, data, source, paper, normalisation, augmentation, loss, found)


def kind_of(data: Dataset) -> str:
    """What its inputs are: "picture", "signal", "volume" or "series"."""
    return data.reader.kind if data.reader is not None else {2: "series", 4: "volume"}.get(len(data.shape), "picture")


def source_of(data: str | Path) -> str:
    """A data set's own name, or its whole path, so that it is found again from anywhere."""
    written = str(data)
    if written in datasets.BUNDLED or written.startswith("hf:"):
        return written
    return str(Path(written).expanduser().absolute())


def load(data: Any, paper: Architecture | None, options: Options, progress: Watcher | None) -> Dataset:
    """The data set, at the size that the text or the options ask for.

    Raises:
        OptionError: They contradict each other.
        DataError: The data cannot be used.
    """
    channels, size = None, options.size
    if paper is not None and paper.input_shape is not None and options.patch is None:
        channels, *spatial = paper.input_shape
        if size is not None and tuple(spatial) != ((size,) * len(spatial) if isinstance(size, int) else size):
            raise OptionError(
                f"size={size} contradicts the network's INPUT {paper.input_shape}; leave one of them out."
            )
        size = tuple(spatial)
    return datasets.load(
        data,
        channels=channels,
        size=size,
        seed=options.seed,
        skip_bad=options.skip_bad,
        stream=options.stream,
        validation=options.validation,
        progress=progress,
    )


def step_of(
    source: str,
    variables: Mapping[str, Any],
    data: Any,
    example: int,
    seed: int,
    progress: Watcher | None = None,
) -> tuple[Network, Tensor, Tensor]:
    """A network and one example with its target, as a training step would see them.

    Args:
        source: Notation text, zoo name or file, or the folder of a run.
        variables: Numbers of the names that a text uses.
        data: A data set's name or path; None is random numbers of class 0.
        example: Of the training part.
        seed: Of the first weights and the random numbers.
        progress: Called with ``(done, total, what)`` while files are read.

    Raises:
        OptionError: There is no such example, or the data does not fit the network.
    """
    if files.is_file(Path(source) / checkpoints.FILE):
        found = checkpoints.load(source)
        network = found.network().train()
        normalisation: Normalisation | None = found.normalisation
        options = found.training.options if found.training else {}
        loaded = None if data is None else load_for(shape_of(found), data, options, progress, any_size=network.any_size)
    else:
        paper = zoo.architecture(source, variables)
        loaded = None if data is None else load(data, paper, Options(), progress)
        if loaded is not None:
            check_axes(paper, loaded)
        if loaded is not None and str(source) in zoo.names():
            paper = paper.adapted(loaded.shape, len(loaded.classes), maps=loaded.task == "masks")
        known = DEFAULTS if loaded is None else DEFAULTS | {"input": loaded.shape, "classes": len(loaded.classes)}
        paper = paper.bind(**{name: known[name] for name in paper.open})
        with feeding.randomness(seed, -1):
            network = Network(paper)
        normalisation = None if loaded is None else Normalisation.of(loaded.train)
    if loaded is None or normalisation is None:
        inputs = torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(seed))
        output = network.architecture.shapes()[network.architecture.results[0]]
        return network, inputs, torch.zeros(1, *output[1:], dtype=torch.int64)
    if not 0 <= example < len(loaded.train):
        raise OptionError(f"example={example}: {loaded.name} has training examples 0 to {len(loaded.train) - 1}.")
    if loaded.shape != network.input_shape:
        raise OptionError(f"the network takes {network.input_shape}, the examples of {loaded.name} are {loaded.shape}.")
    inputs, target = loaded.train.take([example])
    return network, normalisation(inputs), target


def check_in_memory(options: Options, data: Dataset) -> None:
    """Refuse options that say how data is loaded, and not as this data set was.

    Raises:
        OptionError: The message says how to load it so.
    """
    said: list[str] = []
    if options.validation and data.validation is None:
        said.append(f"validation={options.validation:g}")
    size = (options.size,) * (len(data.shape) - 1) if isinstance(options.size, int) else options.size
    if size is not None and tuple(size) != data.shape[1:]:
        said.append(f"size={options.size}")
    if options.stream is not None and options.stream != isinstance(data.train, Stored):
        said.append(f"stream={options.stream}")
    if said:
        raise OptionError(
            f"{', '.join(said)} would change how {data.name} is loaded, and it was given as a Dataset, loaded already; "
            f"load it so: striate.datasets.load(..., {', '.join(said)})."
        )


def check_axes(paper: Architecture, data: Dataset) -> None:
    """Refuse a network whose kernels are written for another number of spatial axes than the data has.

    Raises:
        OptionError: The message says which kernel.
    """
    axes = len(data.shape) - 1
    if (written := paper.written_for) is None or written[1] == axes:
        return
    name, own = written
    kernel = "x".join(map(str, getattr(paper[name].operation, "kernel")))  # noqa: B009  (not every operation has one)
    raise OptionError(
        f"the network is for {KINDS.get(own + 1, 'examples')}: the kernel of {name}, {kernel}, is for {own} spatial "
        f"axes, and the {KINDS.get(axes + 1, 'examples')} of {data.name} are {'x'.join(map(str, data.shape))}, which "
        f"has {axes}. A kernel of a single number fits any."
    )


def check_fit(paper: Architecture, data: Dataset, options: Options) -> None:
    """Refuse a network that takes other inputs, or gives other outputs, than the data has.

    Raises:
        GeometryError: The network cannot take the whole examples, of which it learns patches.
        OptionError: The message says which.
    """
    wanted = data.shape
    if options.patch is not None:
        wanted = (data.shape[0], *options.patch)
        fits = len(wanted) == len(data.shape) and all(p <= n for p, n in zip(wanted, data.shape, strict=True))
        if not fits:
            patch, whole = ("x".join(map(str, size)) for size in (options.patch, data.shape[1:]))
            raise OptionError(f"patch={patch} does not fit into the examples, which are {whole}.")
        if not takes_any_size(paper):
            raise OptionError("patch is for networks that take any size, and this one has layers of one, such as FC.")
        paper.adapted(data.shape).shapes()  # the whole examples, by which it is judged
    if paper.input_shape != wanted:
        what = KINDS.get(len(wanted), "examples")
        raise OptionError(f"the network takes {paper.input_shape}, the {what} of {data.name} are {wanted}.")
    output, count = paper.shapes()[paper.results[0]], len(data.classes)
    if data.task == "masks":
        if output != (count, *wanted[1:]):
            raise OptionError(
                f"the network gives {output}, but the masks of {data.name} need {(count, *wanted[1:])}: a map for each "
                f"of {count} classes, as large as the input; end it in CONV1-{count} at full size."
            )
    elif output != (count,):
        classes = paper.classes
        ending = f"ends in {classes} scores" if classes else "has no FC layer to end in"
        raise OptionError(f"the network {ending}, but {data.name} has {count} classes; end it in FC, or FC {count}.")


def check_batches(paper: Architecture, options: Options, count: int, group: Group) -> None:
    """Refuse batches that batch normalisation cannot use: one value for each channel, or none in some process.

    Raises:
        OptionError: The message says which layer and which batch.
    """
    size = feeding.batch_size(options, count)
    batches = [torch.arange(n) for n in {size, count % size or size}]
    alone = [part for batch in batches for part in feeding.parts(batch, Group(), options.accumulate)]
    lone = any(len(part.indices) == 1 for part in alone)
    idle = any(not part.real for batch in batches for part in feeding.parts(batch, group, options.accumulate))
    for node, row in zip(paper, analyse(paper).rows, strict=True):
        if not isinstance(node.operation, BatchNorm):
            continue
        if lone and prod(row.output_shape[1:]) == 1:
            raise OptionError(
                f"{node.name} cannot normalise a batch of 1 picture, which batch_size={options.batch_size} leaves of "
                f"{count}; give another batch_size, or leave out BN."
            )
        if idle:
            raise OptionError(
                f"{node.name} needs examples in each of {group.size} processes, and batch_size={options.batch_size} "
                f"with accumulate={options.accumulate} leaves too few of {count}; give another batch_size."
            )


def resumed(
    resume: str | Path, network: Any, data: Any, out: Any, given: Mapping[str, Any], progress: Watcher | None
) -> Start:
    """Where an interrupted run stands.

    Raises:
        CheckpointError: It cannot be read, or was another run.
        OptionError: What was given contradicts it.
        DataError: The data cannot be used.
    """
    found = checkpoints.load(Path(resume))
    path = Path(resume)
    if out is not None:
        raise OptionError(f"{path}: a resumed run stays in its folder; leave out={str(out)!r} out.")
    if not files.is_folder(path) or found.training is None:
        raise CheckpointError(f"{path}: resume takes the folder of a run.")
    stored = options_of(found.training.options)
    if network is not None and zoo.architecture(network) != (kept := notation.parse(found.notation)):
        raise CheckpointError(f"{path}: goes on with its own network, {notation.format(kept)}; leave the network out.")
    options = options_of(stored.model_dump() | dict(given))
    _check_same(path, stored, options, found)
    source = found.training.data if data is None else data
    if source is None:
        raise OptionError(f"{path}: was trained on data in memory; give it again.")
    paper = notation.parse(found.notation)
    loaded = load_for(shape_of(found), source, options.model_dump(), progress, any_size=takes_any_size(paper))
    check_classes(found.classes, loaded)
    _check_data(path, found, loaded)
    check_batches(paper, options, len(loaded.train), Group.current())
    source = None if isinstance(source, Dataset) else source_of(source)
    return _settled(path.name, options, loaded, source, paper, found)


FREE = (
    "epochs",
    "steps",
    "minutes",
    "workers",
    "device",
    "log",
    "report",
    "checkpoint_minutes",
)  # may change on the way


def _check_same(path: Path, stored: Options, options: Options, found: Checkpoint) -> None:
    before, now = stored.settled(), options.settled()
    changed = [name for name, _ in stored if name not in FREE and before.get(name) != now.get(name)]
    if changed:
        raise OptionError(f"{path}: a run goes on with its own {', '.join(changed)}; start a new run to change that.")
    laid_out = options.schedule != "constant" or options.warmup
    if (options.epochs, options.steps) != (stored.epochs, stored.steps) and laid_out:
        planned = f"{stored.steps} steps" if stored.steps else f"{stored.epochs} epochs"
        raise OptionError(
            f"{path}: its schedule was laid out for {planned}; only a run with the constant schedule and "
            "without warm-up can be prolonged. "
            f"A new run can start from its weights: weights={path / checkpoints.FILE}."
        )
    if found.training is not None:
        each = feeding.steps_per_epoch(stored, found.training.examples)
        cut = stored.steps is not None and len(found.training.history) * each > stored.steps
        if cut and options.steps != stored.steps:
            raise OptionError(
                f"{path}: its {stored.steps} steps ended within an epoch of {each}; such a run cannot be prolonged."
            )
    done = len(found.training.history) if found.training else 0
    if options.steps is None and options.epochs < done:
        raise OptionError(f"{path}: {done} epochs are done already, more than {options.epochs}.")


def _check_data(path: Path, found: Checkpoint, loaded: Dataset) -> None:
    training = found.training
    if training is None:
        return
    if (count := len(loaded.train)) != training.examples:
        raise CheckpointError(
            f"{path}: was trained on {training.examples} examples, {loaded.name} has {count} now; "
            "a run can only go on with the same data."
        )
    if loaded.train.digest() != training.digest:
        raise CheckpointError(
            f"{path}: the examples or targets of {loaded.name} have changed since it was trained; "
            "a run can only go on with the same data."
        )
