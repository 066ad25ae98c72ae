"""A trained network as one file for other programs: pixels in, probabilities out, nothing else to know.

The normalisation and the softmax are inside the graph; class names and the network's text are in the metadata. A file
is written after its own runtime has read it and agreed with PyTorch, and then at once: there is never half of one.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import files, notation
from .checkpoint import Checkpoint
from .errors import OptionError, WrongResultError, unknown_name
from .prediction import Classifier

FORMS = {"onnx": ".onnx", "torch": ".pt2"}
RUNTIMES = {"onnx": "ONNX Runtime", "torch": "The program that torch.export wrote"}
INPUT, OUTPUT, METADATA = "input", "probabilities", "striate.json"
LARGEST = 2**31 - 2**20
"""Bytes of an ONNX file; a message of Protocol Buffers holds no more than 2 GiB."""
TOLERANCE = 1e-3
FAINT = 1e-30
"""Probabilities below this are taken for equal: float32 no longer tells them apart well."""

Run = Callable[[Tensor], Tensor]


class Recogniser(nn.Module):
    """A network between its normalisation and a softmax over the classes.

    Args:
        network: Gives scores ``(N, classes, *spatial)``.
        normalisation: Takes inputs as they are stored to what the network reads.

    >>> pixels = torch.zeros(1, 2, dtype=torch.uint8)
    >>> Recogniser(nn.Identity(), lambda stored: stored.float())(pixels)
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, network: nn.Module, normalisation: Run) -> None:
        super().__init__()
        self.network, self.normalisation = network, normalisation

    def forward(self, stored: Tensor) -> Tensor:
        """Examples as they are stored, ``(N, C, *spatial)``, to probabilities ``(N, classes)`` or a map of them."""
        scores: Tensor = self.network(self.normalisation(stored))
        return scores.softmax(1)


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Args:
        path: The file.
        form: "onnx" or "torch".
        input: Name, type and shape of what goes in.
        output: Name, type and shape of what comes out.
        classes: Names, in the order of the probabilities.
        bytes: Size of the file.
        checked: Batches of random inputs on which it was compared with PyTorch.
        difference: The largest difference between two probabilities there.
    """

    path: Path
    form: str
    input: str
    output: str
    classes: tuple[str, ...]
    bytes: int
    checked: tuple[int, ...]
    difference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"path": str(self.path), "classes": [*self.classes], "checked": [*self.checked]}

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.checked))
        return (
            f"{self.path}: {self.input} to {self.output}, {self.bytes / 1000:,.0f} kB.\n"
            f"{RUNTIMES[self.form]} agrees with PyTorch on random batches of {batches}: "
            f"probabilities differ by at most {self.difference:.1e}."
        )


def export(
    source: str | os.PathLike[str] | Checkpoint | Classifier,
    path: str | os.PathLike[str],
    *,
    form: str | None = None,
    batch: str | int = "any",
    size: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Exported:
    """Write a trained network as ONNX (``.onnx``) or as a program of ``torch.export`` (``.pt2``).

    The graph has one input, "input" ``(batch, C, *spatial)`` of the type that examples are stored in, and one output,
    "probabilities" ``(batch, classes)``; of a network of maps ``(batch, classes, *spatial)``. Class names, the
    network's text, its normalisation, how files become examples and Striate's version are metadata:
    ``metadata_props`` of an ONNX file, the extra file "striate.json" of a ``.pt2`` file.

    Args:
        source: A run's folder, its checkpoint, or a classifier.
        path: The file; an earlier one is replaced.
        form: "onnx" or "torch"; not given, the ending of the path says it, which it must not contradict.
        batch: How many examples go in at a time: "any", or one number.
        size: Spatial size of the input; not given, that of the training examples, also if patches of them were learned.
        dtype: Of the input; not given, that of the training examples.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
        GeometryError: The network cannot take this size.
        OptionError: The options do not fit, a package is missing, or the network cannot be written in this form.
        WrongResultError: What was to be written does not compute what PyTorch does.
        OutputError: The file cannot be written; an earlier one is as it was.

    >>> import tempfile
    >>> from striate.datasets import Normalisation
    >>> from striate.networks import network
    >>> classifier = Classifier(network("INPUT 1x4x4 -> FC 2"), ("cat", "dog"), Normalisation((0.5,), (0.25,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = export(classifier, Path(folder, "tiny.pt2"))
    >>> found.input, found.output, found.checked
    ('input uint8 (batch, 1, 4, 4)', 'probabilities float32 (batch, 2)', (1, 3))
    """
    path, chosen = Path(path), _form(Path(path), form)
    batches = _batches(batch)
    classifier = source if isinstance(source, Classifier) else Classifier.load(source)
    module = Recogniser(copy.deepcopy(classifier.network).cpu(), classifier.normalisation).eval()
    shape, dtype = _shape(classifier, size), dtype or classifier.dtype
    samples = [_sample((n, *shape), dtype) for n in batches]
    with torch.no_grad():
        wanted = [module(sample) for sample in samples]
    _check_classes(classifier.classes, wanted[0])
    content, run = WRITERS[chosen](module, _described(classifier), shape, dtype, batch)
    difference = _compare(RUNTIMES[chosen], run, samples, wanted)
    files.write(path, content)
    return Exported(
        path=path,
        form=chosen,
        input=_signature(INPUT, samples[0], batch),
        output=_signature(OUTPUT, wanted[0], batch),
        classes=tuple(classifier.classes),
        bytes=len(content),
        checked=batches,
        difference=difference,
    )


def _form(path: Path, form: str | None) -> str:
    """The form asked for, or that of the path's ending."""
    found = next((name for name, ending in FORMS.items() if path.suffix.lower() == ending), None)
    if form is not None:
        if form not in FORMS:
            raise unknown_name("form", form, FORMS)
        if found not in (None, form):
            raise OptionError(f"{path}: form={form!r} contradicts the ending, which says {found!r}; change one.")
        return form
    if found is None:
        raise OptionError(f"{path}: the ending says no form; end it in .onnx (ONNX) or .pt2 (torch.export).")
    return found


def _shape(classifier: Classifier, size: Sequence[int] | None) -> tuple[int, ...]:
    """Of one example."""
    shape = classifier.shape if size is None else (classifier.shape[0], *size)
    written = "x".join(map(str, shape[1:]))
    if len(shape) != len(classifier.shape) or min(shape) < 1:
        axes = len(classifier.shape) - 1
        raise OptionError(f"size={written}: the network's input has {axes} spatial axes, each of at least 1.")
    if shape != classifier.network.input_shape and not classifier.network.any_size:
        taken = "x".join(map(str, classifier.network.input_shape[1:]))
        raise OptionError(f"size={written}: the network takes {taken}; it has layers of one size, such as FC.")
    classifier.check_size(shape)
    return shape


def _batches(batch: str | int) -> tuple[int, ...]:
    """The batches to check."""
    if batch == "any":
        return (1, 3)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise OptionError(f"batch={batch!r}: give 'any', or a whole number of at least 1.")
    return (batch,)


def _sample(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers of the whole range of a type, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, shape, generator=generator, dtype=dtype)


def _check_classes(classes: tuple[str, ...], probabilities: Tensor) -> None:
    if probabilities.shape[1] != len(classes):
        raise OptionError(f"the network gives {probabilities.shape[1]} scores, but there are {len(classes)} classes.")


def _described(classifier: Classifier) -> dict[str, str]:
    """What a program needs to know besides the graph; lists as JSON."""
    return {
        "classes": json.dumps(list(classifier.classes), ensure_ascii=False),
        "notation": notation.format(classifier.network.architecture),
        "mean": json.dumps(list(classifier.normalisation.mean)),
        "std": json.dumps(list(classifier.normalisation.std)),
        **({} if classifier.reader is None else {"reader": json.dumps(classifier.reader.to_dict())}),
        "version": f"striate {version('striate')}",
    }


def _signature(name: str, values: Tensor, batch: str | int) -> str:
    first = "batch" if batch == "any" else str(batch)
    sizes = ", ".join([first, *map(str, values.shape[1:])])
    return f"{name} {str(values.dtype).removeprefix('torch.')} ({sizes})"


# ------------------------------------------------------------------------------------------------------- the two forms


def _as_onnx(
    module: Recogniser, metadata: dict[str, str], shape: tuple[int, ...], dtype: torch.dtype, batch: str | int
) -> tuple[bytes, Run]:
    """The bytes of an ONNX file, and how ONNX Runtime runs them."""
    onnx, runtime = _packages()
    size = sum(one.numel() * one.element_size() for one in (*module.parameters(), *module.buffers()))
    if size > LARGEST:
        raise OptionError(f"the weights take {size / 2**30:.1f} GiB, and an ONNX file holds 2; write a .pt2 file.")
    example, sizes = _example(shape, dtype, batch)
    with _quiet(), _writing("ONNX"):
        program: Any = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=sizes,
        )
        model = program.model_proto
    _forget_where(model)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    with _writing("ONNX"):
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda stored: torch.from_numpy(session.run([OUTPUT], {INPUT: stored.numpy()})[0])


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx asks for it)
    except ImportError as error:
        missing = "a package" if error.name is None else error.name
        raise OptionError(f"export to ONNX needs {missing}: pip install 'striate[export]'.") from None
    return onnx, onnxruntime


def _forget_where(model: Any) -> None:
    """Take away what the exporter notes for its developers: names of its passes, and paths of this machine."""
    graphs = [model.graph, *model.functions]
    entries = [node for graph in graphs for node in graph.node]
    for kind in ("input", "output", "value_info", "initializer"):
        entries += getattr(model.graph, kind)
    for entry in (*graphs, *entries):
        del entry.metadata_props[:]


def _as_program(
    module: Recogniser, metadata: dict[str, str], shape: tuple[int, ...], dtype: torch.dtype, batch: str | int
) -> tuple[bytes, Run]:
    """The bytes of a ``.pt2`` file, and the program as it is read from them."""
    example, sizes = _example(shape, dtype, batch)
    with _quiet(), _writing("torch.export"), torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=sizes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(metadata, ensure_ascii=False)})
        content = stream.getvalue()
        run = torch.export.load(io.BytesIO(content)).module()
    return content, run


def _example(shape: tuple[int, ...], dtype: torch.dtype, batch: str | int) -> tuple[Tensor, Any]:
    """What the network is traced with, and which of its sizes are open."""
    if batch == "any":
        return _sample((2, *shape), dtype), ({0: torch.export.Dim("batch", min=1)},)
    return _sample((int(batch), *shape), dtype), None


WRITERS = {"onnx": _as_onnx, "torch": _as_program}


@contextmanager
def _writing(form: str) -> Iterator[None]:
    """Say in one line that the other side cannot do it."""
    try:
        yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise OptionError(f"the network cannot be written as {form}: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn and log about themselves: what they have deprecated, and packages that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _compare(runtime: str, run: Run, samples: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference between probabilities.

    What is judged are their logarithms, which are the scores but for one number: nearly equal probabilities, as those
    of an untrained network, would hide a wrong one.
    """
    largest = 0.0
    for sample, truth in zip(samples, wanted, strict=True):
        with torch.no_grad():
            found = run(sample)
        if found.shape != truth.shape:
            raise WrongResultError(f"{runtime} gives {tuple(found.shape)}, PyTorch {tuple(truth.shape)}.")
        logs, right = (p.double().clamp(min=FAINT).log() for p in (found, truth))
        spread = (right - right.mean(1, keepdim=True)).square().mean().sqrt().item()
        apart = (logs - right).abs().max().item()
        if not apart <= TOLERANCE * spread + 1e-6:
            raise WrongResultError(
                f"{runtime} does not compute what PyTorch does: for a random batch of {len(sample)} the logarithms of "
                f"probabilities differ by up to {apart:.1e} where they spread by {spread:.1e}. Nothing was written."
            )
        largest = max(largest, (found - truth).abs().max().item())
    return largest
