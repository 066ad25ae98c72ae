"""Published weights into a network of the zoo: tensors find their places by order and shape, or are refused in words.

Other packages name their layers otherwise, but they list them in the order in which they are used, and so does a text.
A file that keeps no order leaves names: layers that share a name lie together, and numbered ones follow their numbers.
Weights are loaded only where that leaves one way.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from . import files, notation, zoo
from .architecture import Architecture
from .errors import CheckpointError, StriateError
from .networks import Network, network
from .node_layers import RBF
from .operations import FC, Shape, written

ROLES = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"  # of batch normalisation; no weight
OTHERS = ("optimizer/", "raw/")  # the parts of a Striate checkpoint that are not the network that predicts
PREFIXES = ("module.", "_orig_mod.", "model.")  # wrappers around a network: data parallel, compiled, a trainer's
NESTED = ("state_dict", "model_state_dict", "model", "weights")
# Names that do not tell their order by numbers, in the order in which the zoo's texts use what they name.
CHAINS = (
    ("conv#", "layer#"),
    ("bn#", "layer#"),
    ("conv#", "downsample"),
    ("bn#", "downsample"),
    ("branch#x#", "branch#x#_#", "branch#x#dbl_#", "branch_pool"),
)
DEEPEST = 50
MOST_ORDERS = 1_000


class Unit(NamedTuple):
    """The tensors of one layer, the weight first.

    Args:
        name: Of the layer.
        keys: Names of the tensors.
        shapes: Theirs, without trailing ones: a fully connected layer and a 1x1 convolution look alike.
    """

    name: str
    keys: tuple[str, ...]
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        tensors: By name.
        ordered: Whether they stand in the order in which the layers were made.
        classes: Names of what the last layer tells apart, if the file says so.
    """

    tensors: Mapping[str, Tensor]
    ordered: bool
    classes: tuple[str, ...] | None = None


def load(name: str | Path | Architecture, file: str | Path, **variables: Any) -> Network:
    """A network with the weights of a file: a state dict of torchvision, timm, or any model of the same layers.

    Names that are those of the network decide; else the order and the shapes of the tensors do, and the names where
    the file keeps no order, as safetensors files do. Half precision becomes float32. Files are read as numbers only:
    safetensors, or what torch.save wrote of tensors; other Python objects are never loaded.

    A fully connected layer behind a map reads channels first, as PyTorch flattens.

    Args:
        name: Of the zoo; also a notation text or a file with one.
        file: Safetensors, or a torch file with a state dict, which may lie under "state_dict" or "model".
        **variables: As for :func:`striate.network`: ``classes=10``, ``aux=1``.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: The file cannot be read, does not fit the network, or leaves more than one way to fit it.
        UnknownNameError: No such network.
        OptionError: A variable is unknown, or does not fit.

    >>> import tempfile
    >>> torch_names = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(torch_names.state_dict(), f"{folder}/small.pt")
    ...     net = load("INPUT 1x4x4 -> CONV3-2 padding=0 -> FC 2", f"{folder}/small.pt")
    >>> torch.equal(net.fc1.weight, torch_names[2].weight)
    True
    """
    path = Path(file)
    built = on_meta(name, variables)
    contents = read(path)
    try:
        found = places(built, contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{hint(name, variables, built, contents)}") from None
    state = built.state_dict()
    weights = {place: floats(path, key, contents.tensors[key]) for place, key in found.items()}
    give(built, {place: tensor.view(state[place].shape) for place, tensor in weights.items()})
    return built.eval()


def transfer(built: Network, file: str | Path, classes: Sequence[str]) -> tuple[str, ...]:
    """The weights of a file into a network that is there: all but those of the last layer if that has other classes.

    Args:
        built: Of the same layers as the file's; changed in place.
        file: As for :func:`load`.
        classes: Names of what it shall tell apart; a file of Striate's says what its own are, and any other file has
            other classes if their number differs.

    Returns:
        The names of the layers that keep their own weights: none, or those that give the scores.

    Raises:
        CheckpointError: The file cannot be read, does not fit, or leaves more than one way to fit it.
    """
    path = Path(file)
    contents = read(path)
    pattern = built
    heads = built.architecture.heads if contents.classes not in (None, tuple(classes)) else ()
    try:
        found = places(pattern, contents)
    except CheckpointError as error:
        other = _of_other_classes(built, contents)
        if other is None:
            raise CheckpointError(f"{path}: {error}{hint(built.architecture, {}, built, contents)}") from None
        pattern, heads = other, built.architecture.heads
        found = places(pattern, contents)
    state = built.state_dict()
    with torch.no_grad():
        for place, key in found.items():
            if place.rpartition(".")[0] not in heads:
                state[place].copy_(floats(path, key, contents.tensors[key]).view(state[place].shape))
    return heads


def _of_other_classes(built: Network, contents: Contents) -> Network | None:
    """The network with as many classes as a file has, if that is the only difference."""
    goal, have = map(shapes_of, sides(built, contents))
    for count in sorted({shapes[0][0] for shapes in have - goal})[:4]:
        other = on_meta(built.architecture.adapted(None, count, maps=built.architecture.classes is None), {})
        if shapes_of(sides(other, contents)[0]) == have:
            return other
    return None


def on_meta(name: str | Path | Architecture, variables: Mapping[str, Any]) -> Network:
    """A network of which nothing is allocated yet."""
    with torch.device("meta"):
        return network(name, **variables)


def give(built: Network, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a network that has no memory yet; what no file holds starts anew."""
    counters = {name: torch.zeros((), dtype=torch.long) for name in built.state_dict() if name.endswith(COUNTER)}
    built.load_state_dict({**counters, **weights}, assign=True, strict=False)
    for module in built.modules():
        if isinstance(module, RBF) and module.codes.is_meta:
            module.codes = RBF(module.codes.shape[1], module.codes.shape[0]).codes


def floats(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A copy of a tensor in float32.

    Raises:
        CheckpointError: It holds no floating-point numbers.
    """
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{path}: {key} holds {kind}; weights are floating-point numbers.")
    return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


# --------------------------------------------------------------------------------------------------------------- files


def read(path: Path) -> Contents:
    """The tensors of a file, without what wrappers and optimisers added.

    Raises:
        CheckpointError: It is missing, damaged, or holds anything but tensors.
    """
    if not files.is_file(path):
        raise CheckpointError(f"{path}: there is no such file.")
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from None
    is_safe = path.suffix == ".safetensors" or head[8:] == b"{"
    tensors = safe_tensors(path) if is_safe else torch_tensors(path)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(OTHERS)}
    for prefix in PREFIXES:
        if kept and all(key.startswith(prefix) for key in kept):
            kept = {key.removeprefix(prefix): tensor for key, tensor in kept.items()}
    kept = {key: tensor for key, tensor in kept.items() if not key.endswith(COUNTER)}
    if not kept:
        raise CheckpointError(f"{path}: holds no weights.")
    if any(key.count(".") > DEEPEST for key in kept):
        raise CheckpointError(f"{path}: holds names of more than {DEEPEST} parts.")
    return Contents(kept, not is_safe and [*kept] != sorted(kept), safe_classes(path) if is_safe else None)


def safe_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which is numbers and text by design."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as safetensors ({error}); it is damaged or of another kind."
        ) from None


def safe_classes(path: Path) -> tuple[str, ...] | None:
    """The class names in the header of a checkpoint; None for other files."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    try:
        return tuple(map(str, json.loads(header["classes"])))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def torch_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a torch file, whose pickle may make nothing but tensors and plain containers."""
    try:
        folded = is_compressed(path)
        loaded = None if folded else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes in the unpickler
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path}: cannot be read as tensors ({lines[0][:200]}); it is damaged, or holds Python objects, which are "
            "never loaded."
        ) from None
    if folded:  # a small file could unfold to any size
        raise CheckpointError(f"{path}: its entries are compressed, as torch.save never does; it is not unfolded.")
    for candidate in (loaded, *(loaded.get(key) for key in NESTED if isinstance(loaded, Mapping))):
        if is_state_dict(candidate):
            return dict(candidate)
    raise CheckpointError(f"{path}: holds no state dict, which is names with tensors.")


def is_compressed(path: Path) -> bool:
    """Whether it is an archive with a compressed entry."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(entry.compress_type for entry in archive.infolist())


def is_state_dict(candidate: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether it is names with dense tensors, one at least.

    >>> is_state_dict({"weight": torch.ones(2)}), is_state_dict({"epoch": 3}), is_state_dict({})
    (True, False, False)
    """
    return (
        isinstance(candidate, Mapping)
        and bool(candidate)
        and all(isinstance(key, str) for key in candidate)
        and all(isinstance(value, Tensor) and value.layout is torch.strided for value in candidate.values())
        and not any(value.is_meta for value in candidate.values())
    )


# ----------------------------------------------------------------------------------------------------------- the layers


def units(tensors: Mapping[str, Tensor], alike: Mapping[Shape, Shape] | None = None) -> list[Unit]:
    """Tensors by layer, in the order of the first of each; one with a name of its own stands alone.

    Args:
        tensors: By name.
        alike: Shapes that mean another one: :func:`whole_maps`.

    >>> shapes = {"a.bias": (2,), "a.weight": (2, 3, 1, 1), "gamma": (2, 1, 1)}
    >>> [unit.shapes for unit in units({name: torch.empty(shape) for name, shape in shapes.items()})]
    [((2, 3), (2,)), ((2,),)]
    """
    layers: dict[str, list[str]] = {}
    for key in tensors:
        layer, _, role = key.rpartition(".")
        layers.setdefault(layer if role in ROLES else key, []).append(key)
    found = []
    for name, keys in layers.items():
        ranked = sorted(keys, key=lambda key: ROLES.index(role_of(key)) if len(keys) > 1 else 0)
        shapes = (bare(tensors[key].shape) for key in ranked)
        found.append(Unit(name, tuple(ranked), tuple((alike or {}).get(shape, shape) for shape in shapes)))
    return found


def whole_maps(architecture: Architecture) -> dict[Shape, Shape]:
    """Windows as large as the map that a fully connected layer reads: the same numbers in the same order.

    >>> whole_maps(notation.parse("INPUT 512x7x7 -> FC 4096"))
    {(4096, 512, 7, 7): (4096, 25088)}
    """
    shapes = architecture.shapes()
    read = (
        (node.operation.features or 0, shapes[node.inputs[0]])
        for node in architecture
        if isinstance(node.operation, FC)
    )
    return {bare((features, *shape)): bare((features, prod(shape))) for features, shape in read}


def role_of(key: str) -> str:
    """What a tensor is for its layer: the last part of its name."""
    return key.rpartition(".")[2]


def bare(shape: Sequence[int]) -> Shape:
    """A shape without the ones at its end.

    >>> bare((10, 84, 1, 1)), bare((96, 1, 7, 7)), bare((1, 1))
    ((10, 84), (96, 1, 7, 7), (1,))
    """
    sizes = list(shape)
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def wanted_tensors(built: Network) -> dict[str, Tensor]:
    """The tensors of a network that a file must bring: neither counters nor fixed codes."""
    fixed = {f"{name}.codes" for name, module in built.named_modules() if isinstance(module, RBF)}
    return {key: tensor for key, tensor in built.state_dict().items() if not key.endswith(COUNTER) and key not in fixed}


def places(built: Network, contents: Contents) -> dict[str, str]:
    """The network's tensors and the file's that go there.

    Raises:
        CheckpointError: They do not fit, or in more than one way; without the file's name.
    """
    wanted, state = wanted_tensors(built), built.state_dict()
    named = {key for key in contents.tensors if key in state and state[key].shape == contents.tensors[key].shape}
    if len(named) == len(contents.tensors) and named >= set(wanted):
        return {key: key for key in contents.tensors}
    goal, have = sides(built, contents)
    places = [key for unit in goal for key in unit.keys]
    if contents.ordered and fits(flat(goal), flat(have)):
        return dict(zip(places, (key for unit in have for key in unit.keys), strict=True))
    if shapes_of(have) != shapes_of(goal):
        raise CheckpointError(parting(goal, have, contents.ordered))
    first, *others = orders(tree(have), goal) or [()]
    if not first:
        raise CheckpointError(parting(goal, have, contents.ordered))
    if others:
        raise CheckpointError(ambiguity(goal, first, others[0]))
    return dict(zip(places, (key for unit in first for key in unit.keys), strict=True))


def sides(built: Network, contents: Contents) -> tuple[list[Unit], list[Unit]]:
    """The layers of a network and those of a file."""
    alike = whole_maps(built.architecture)
    return units(wanted_tensors(built), alike), units(contents.tensors, alike)


def shapes_of(layers: Iterable[Unit]) -> Counter[tuple[Shape, ...]]:
    """How many layers there are of each kind."""
    return Counter(unit.shapes for unit in layers)


Tensors = list[tuple[str, Shape]]


def flat(layers: Iterable[Unit]) -> Tensors:
    """All tensors' names and shapes."""
    return [one for unit in layers for one in zip(unit.keys, unit.shapes, strict=True)]


def fits(goal: Tensors, have: Tensors) -> bool:
    """Whether tensors fit one by one."""
    return len(goal) == len(have) and all(map(fits_one, goal, have))


def fits_one(goal: tuple[str, Shape], have: tuple[str, Shape]) -> bool:
    """Whether one tensor fits: by its shape, and by its role if its name tells one.

    >>> fits_one(("bn1.bias", (8,)), ("norm.bias", (8,))), fits_one(("bn1.bias", (8,)), ("norm.running_mean", (8,)))
    (True, False)
    """
    role = role_of(have[0])
    return goal[1] == have[1] and (role not in ROLES or role == role_of(goal[0]))


# ----------------------------------------------------------------------------------------------- order out of names


@dataclass(frozen=True, eq=False)
class Branch:
    """Layers of a file that share the beginning of their names.

    Args:
        unit: The only layer, if there is nothing below.
        families: What lies below: alike but for numbers, in the order of these.
        templates: What the names of each family have in common.
        size: How many layers.
    """

    unit: Unit | None = None
    families: tuple[tuple[Branch, ...], ...] = ()
    templates: tuple[str, ...] = ()
    size: int = 1
    known: dict[int, list[tuple[Unit, ...]]] = field(default_factory=dict, repr=False)


def template(name: str) -> str:
    """A name with its numbers, and a letter behind one, left open.

    >>> template("layer12"), template("Mixed_5b"), template("branch3x3dbl_3a")
    ('layer#', 'Mixed_#', 'branch#x#dbl_#')
    """
    return re.sub(r"[0-9]+[a-z]?(?![a-z0-9])|[0-9]+", "#", name)


def numbers(name: str) -> list[Any]:
    """What orders names of one template.

    >>> sorted(["conv10", "conv9", "conv2"], key=numbers)
    ['conv2', 'conv9', 'conv10']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def tree(layers: Sequence[Unit], depth: int = 0) -> Branch:
    """Layers as the tree of their names."""
    below: dict[str, list[Unit]] = {}
    for unit in layers:
        parts = unit.name.split(".")
        below.setdefault(parts[depth] if depth < len(parts) else "", []).append(unit)
    if len(layers) == 1:
        return Branch(layers[0])
    families: dict[str, list[str]] = {}
    for name in below:
        families.setdefault(template(name), []).append(name)
    branches = tuple(
        tuple(tree(below[name], depth + 1) for name in sorted(names, key=numbers)) for names in families.values()
    )
    return Branch(None, branches, tuple(families), len(layers))


def orders(branch: Branch, goal: Sequence[Unit], place: int = 0) -> list[tuple[Unit, ...]]:
    """At most two orders of a branch's layers that fit what the network wants from a place on.

    Raises:
        CheckpointError: The names leave too many orders to try.
    """
    if branch.unit is not None:
        fitting = fits(flat([goal[place]]), flat([branch.unit]))
        return [(branch.unit,)] if fitting else []
    if place not in branch.known:
        branch.known[place] = _interleaved(branch, goal, place)
    return branch.known[place]


def _interleaved(branch: Branch, goal: Sequence[Unit], place: int) -> list[tuple[Unit, ...]]:
    """Orders in which each family keeps its own: step by step, with how many of each family are placed."""
    waits = [
        {i for chain in CHAINS if late in chain for i, early in enumerate(branch.templates)
         if early in chain[: chain.index(late)]}
        for late in branch.templates
    ]  # fmt: skip
    states: dict[tuple[int, ...], list[tuple[Unit, ...]]] = {(0,) * len(branch.families): [()]}
    for _ in range(sum(map(len, branch.families))):
        after: dict[tuple[int, ...], list[tuple[Unit, ...]]] = {}
        for state, before in states.items():
            for family, members in enumerate(branch.families):
                done = all(state[i] == len(branch.families[i]) for i in waits[family])
                if state[family] < len(members) and done:
                    here = place + len(before[0])
                    found = [one + more for one in before for more in orders(members[state[family]], goal, here)]
                    if found:
                        moved = (*state[:family], state[family] + 1, *state[family + 1 :])
                        after[moved] = [*after.get(moved, ()), *found][:2]
        if len(after) > MOST_ORDERS:
            raise CheckpointError("its names leave too many orders of its layers to try.")
        states = after
    return next(iter(states.values()), [])


# --------------------------------------------------------------------------------------------------------- explanations


def described(key: str, shape: Shape) -> str:
    """A tensor as messages write it."""
    return f"{key} {written(shape)}"


def parting(goal: Sequence[Unit], have: Sequence[Unit], ordered: bool) -> str:
    """Where a file and a network part."""
    inside, outside = flat(goal), flat(have)
    head = f"its {len(outside)} tensors do not fit the network's {len(inside)}: "
    return head + (_parting_in_order(inside, outside) if ordered else _parting_of_shapes(goal, have))


def _parting_in_order(inside: Tensors, outside: Tensors) -> str:
    for number, (one, other) in enumerate(zip(inside, outside, strict=False), 1):
        if not fits_one(one, other):
            return f"tensor {number} is {described(*other)} in the file, {described(*one)} in the network."
    if len(inside) < len(outside):
        return f"the file goes on with {described(*outside[len(inside)])} where the network ends."
    return f"the file ends where the network goes on with {described(*inside[len(outside)])}."


def _parting_of_shapes(goal: Sequence[Unit], have: Sequence[Unit]) -> str:
    for sides, text in (
        ((goal, have), "no layer of the file is left for {} of the network"),
        ((have, goal), "no layer of the network is left for {} of the file"),
    ):
        left = Counter(unit.shapes for unit in sides[1])
        for unit in sides[0]:
            left[unit.shapes] -= 1
            if left[unit.shapes] < 0:
                return text.format(described(unit.keys[0], unit.shapes[0])) + "."
    return "their shapes are the same, but in no order that the file's names permit."


def ambiguity(goal: Sequence[Unit], first: Sequence[Unit], second: Sequence[Unit]) -> str:
    """Where two ways to fit a file part."""
    unit, one, other = next(three for three in zip(goal, first, second, strict=True) if three[1] != three[2])
    return (
        f"its tensors fit the network in more than one way: {unit.keys[0]} may be {one.keys[0]} or {other.keys[0]}. "
        "The file does not keep the order of its layers; save the state dict with torch.save, which does."
    )


def hint(name: Any, variables: Mapping[str, Any], built: Network, contents: Contents) -> str:
    """What would fit the file instead; empty if nothing is found."""
    goal, have = map(shapes_of, sides(built, contents))
    if goal == have:
        return ""
    for more in _variations(name, variables, have - goal):
        if _would_fit(name, {**variables, **more}, contents):
            return f" {_advice(more, built)}"
    for other in _others(contents):
        if _would_fit(other, {}, contents):
            return f" It fits {other}."
    return ""


def _advice(more: Mapping[str, int], built: Network) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in more.items())
    ends = built.architecture.classes
    if "classes" in more and ends is not None:
        return f"The file ends in {more['classes']} classes, the network in {ends}: load with {settings}."
    return f"It fits with {settings}."


def _variations(
    name: Any, variables: Mapping[str, Any], extra: Iterable[tuple[Shape, ...]]
) -> Iterator[dict[str, int]]:
    """Other values for what the user may choose: a text's switches, and the classes that the file seems to have."""
    used = frozenset() if isinstance(name, Architecture) else notation.read(zoo.read(name), variables)[1]
    switches = [{}, *({one: value} for one in sorted(used - {"classes"}) for value in (0, 1))]
    counts = sorted({shapes[0][0] for shapes in extra})[:4]
    for switch in switches:
        if switch:
            yield switch
        yield from ({**switch, "classes": count} for count in counts)


def _would_fit(name: Any, variables: Mapping[str, Any], contents: Contents) -> bool:
    try:
        goal, have = sides(on_meta(name, variables), contents)
    except StriateError:  # a value that this network does not take
        return False
    return shapes_of(goal) == shapes_of(have)


def _others(contents: Contents) -> Iterator[str]:
    """Networks of the zoo with as many learned numbers."""
    learned = (tensor.shape for key, tensor in contents.tensors.items() if not role_of(key).startswith("running_"))
    total = sum(map(prod, learned))
    return (name for name, parameters in _parameters_of_the_zoo().items() if parameters == total)


@lru_cache(maxsize=1)
def _parameters_of_the_zoo() -> dict[str, int]:
    found = {}
    for name in zoo.names():
        nodes = zoo.architecture(name)
        shapes = nodes.shapes()
        costs = (node.operation.parameters(*(shapes[one] for one in node.inputs)) for node in nodes if node.inputs)
        found[name] = sum(cost or 0 for cost in costs)
    return found
