"""The zoo: published networks and their published counts, equal to independent ones, and where a text may come from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from striate import loading, networks, zoo
from striate.analysis import Description, describe
from striate.architecture import Architecture, Node
from striate.errors import DataError, NotationError, OptionError, UnknownNameError
from striate.notation import format, parse
from striate.operations import Conv, Pool

from . import counts
from .counts import Counts, dimensions
from .peers_zoo import NETWORKS, build

ROWS = [row for row in counts.ROWS if row.variables != "peer"]
IDS = [row.name if row.variables == "-" else f"{row.name} {row.variables}" for row in ROWS]
NAMES = sorted({row.name for row in ROWS})
KNOWN = f"Known: {', '.join(NAMES)}."
every_row = pytest.mark.parametrize("row", ROWS, ids=IDS)


def variables_of(choice: str) -> dict[str, Any]:
    name, _, value = choice.partition("=")
    return {} if choice == "-" else {name: int(value)}


@cache
def described(name: str, choice: str) -> Description:
    return describe(name, **variables_of(choice))


def test_the_names() -> None:
    assert list(zoo.names()) == NAMES


@every_row
def test_the_published_counts(row: Counts) -> None:
    table = described(row.name, row.variables)
    assert (table.totals.parameters, table.totals.macs) == (row.parameters, row.macs)
    assert dimensions(table.rows[0].output_shape) == row.input
    assert table.architecture is not None
    assert "+".join(dimensions(table[name].output_shape) for name in table.architecture.results) == row.outputs


# Distill 2019, "Computing Receptive Fields of Convolutional Neural Networks" (Araujo, Norris, Sim): the last map. Its
# ResNets are the paper's (TensorFlow slim puts the stride in the last block of a stage, which gives the same size);
# torchvision's stride in the 3x3 sees less. Its AlexNet is the "one weird trick" network without padding in front.
FIELDS = """
    name          variables  node            field  source
    alexnet       -          pool3             195  Distill
    vgg16         -          pool5             212  Distill
    mobilenet_v1  -          relu27            315  Distill
    resnet50      paper=1    relu49            483  Distill
    resnet101     paper=1    relu100          1027  Distill
    resnet152     paper=1    relu151          1507  Distill
    resnet50      -          relu49            427  counted
    inception_v3  -          concat15         1311  Distill
    inception_v4  -          concat25         2071  Distill
"""
FIELD_ROWS = [line.split() for line in FIELDS.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", FIELD_ROWS, ids=[f"{row[0]} {row[1]}" for row in FIELD_ROWS])
def test_the_published_receptive_fields(row: list[str]) -> None:
    name, choice, node, field, _ = row
    assert described(name, choice)[node].endless == (int(field),) * 2


def test_a_vgg_network_is_the_configuration_of_the_paper() -> None:
    """Simonyan and Zisserman 2014, table 1: the number of the configuration's layers in each of its five blocks."""
    for name, letter, blocks in (
        ("vgg11", "A", (1, 1, 2, 2, 2)),
        ("vgg13", "B", (2, 2, 2, 2, 2)),
        ("vgg16", "D", (2, 2, 3, 3, 3)),
        ("vgg16_bn", "D", (2, 2, 3, 3, 3)),
        ("vgg19", "E", (2, 2, 4, 4, 4)),
    ):
        layers = [node.operation for node in zoo.architecture(name) if isinstance(node.operation, Conv | Pool)]
        wanted: list[Any] = []
        for count, filters in zip(blocks, (64, 128, 256, 512, 512), strict=True):
            wanted += [Conv(3, filters)] * count + [Pool(2)]
        assert layers == wanted
        assert sum(blocks) + 3 == int(name.removeprefix("vgg").removesuffix("_bn"))
        assert f"configuration {letter}:" in zoo.text(name).splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_complete_and_names_its_source(name: str) -> None:
    text = zoo.text(name)
    first = text.splitlines()[0]
    assert re.match(r"# \S.*: .*[^\W\d_].* (19|20)\d\d, \"", text.split("INPUT")[0].replace("\n#", ""))
    assert first.startswith("# ")
    parsed = parse(text)
    assert parsed.open == ()
    assert parse(format(parsed)) == parsed
    assert max(map(len, text.splitlines())) <= 120
    assert text.endswith("\n")


def test_texts_are_short_enough_to_read_aloud() -> None:
    lines = {name: len(zoo.text(name).splitlines()) for name in NAMES}
    assert lines["resnet50"] <= 15
    assert lines["googlenet"] <= 25
    assert max(lines.values()) <= 25


# ------------------------------------------------------------------------- equal to independent definitions, in torch

WITH_PEERS = [(row.name, row.variables, row.peer) for row in ROWS if row.peer in NETWORKS]
every_peer = pytest.mark.parametrize(("name", "choice", "peer"), WITH_PEERS, ids=[peer for _, _, peer in WITH_PEERS])


def peer_on_meta(name: str) -> nn.Module:
    """The independent network, without memory for its weights."""
    with torch.device("meta"):
        return build(name).eval()


def test_every_independent_network_has_its_text() -> None:
    """But two: AlexNet in one tower, and Caffe's order of pooling and normalisation."""
    assert {peer for _, _, peer in WITH_PEERS} == set(NETWORKS) - {"alexnet_ungrouped", "caffenet"}


@every_peer
def test_layers_have_as_many_parameters_in_the_same_order(name: str, choice: str, peer: str) -> None:
    modules = peer_on_meta(peer).modules()
    theirs = [sum(one.numel() for one in module.parameters(recurse=False)) for module in modules]
    ours = [row.parameters for row in described(name, choice).rows]
    theirs, ours = list(filter(None, theirs)), list(filter(None, ours))
    if name == "convnext_tiny":  # a block's scale is registered before its layers, and used behind them
        assert Counter(ours) == Counter(theirs)
    else:
        assert ours == theirs


# The smallest inputs that the networks take without much time. Thin networks have a 16th of the filters: what is left
# out of the others for their size.
SIZES = """
    peer                  input         filters
    lenet5                1x28x28       all
    lenet5_original       1x32x32       all
    alexnet               3x227x227     thin
    alexnet_torchvision   3x224x224     thin
    zfnet                 3x224x224     thin
    nin                   3x32x32       all
    allcnn_a              3x32x32       all
    allcnn_b              3x32x32       all
    allcnn_c              3x32x32       all
    vgg11                 3x224x224     thin
    vgg13                 3x224x224     thin
    vgg16                 3x224x224     thin
    vgg19                 3x224x224     thin
    vgg16_bn              3x224x224     thin
    squeezenet1_0         3x64x64       all
    squeezenet1_1         3x64x64       all
    googlenet             3x64x64       thin
    googlenet_aux         3x224x224     thin
    googlenet_paper       3x64x64       thin
    googlenet_paper_aux   3x224x224     thin
    inception_v3          3x75x75       thin
    inception_v3_aux      3x299x299     thin
    inception_v4          3x75x75       thin
    xception              3x71x71       thin
    resnet18              3x64x64       thin
    resnet34              3x33x47       thin
    resnet50              3x64x64       thin
    resnet101             3x33x47       thin
    resnet152             3x33x47       thin
    resnext50_32x4d       3x33x33       all
    seresnet50            3x33x47       thin
    preresnet18           3x33x47       thin
    preresnet50           3x33x47       thin
    preresnet50_paper     3x33x47       thin
    densenet121           3x65x65       thin
    convnext_tiny         3x64x64       thin
    replknet31b           3x33x47       thin
    replknet31b_training  3x33x47       thin
    mobilenet_v1          3x33x47       all
    mobilenet_v2          3x64x64       all
    shufflenet_v1         3x33x47       all
    shufflenet_v2_x1_0    3x64x64       all
    fcn32s                3x224x224     thin
    fcn16s                3x224x224     thin
    fcn8s                 3x224x224     thin
    unet                  1x188x204     thin
    unet3d                3x100x92x92   thin
    context_net           21x40x40      all
    m5                    1x2000        all
    m11                   1x4000        thin
    wavenet         1x1100        all
    c3d                   3x16x112x112  thin
"""
SIZE_OF = {row[0]: row[1:] for row in (line.split() for line in SIZES.strip().splitlines()[1:])}


def thin(number: int) -> int:
    return number // 16 if number >= 32 else number


def thinned(architecture: Architecture) -> Architecture:
    """The same layers with a 16th of the filters and features."""

    def thinner(node: Node) -> Node:
        kept = {name: getattr(node.operation, name, None) for name in ("filters", "features")}
        fewer = {name: thin(number) for name, number in kept.items() if number}
        return replace(node, operation=replace(node.operation, **fewer)) if fewer else node

    return replace(architecture, nodes=tuple(map(thinner, architecture.nodes)))


def random_numbers() -> Tensor:
    """As many as a prime, so that taking them again and again gives no two filters the same numbers."""
    return torch.randn(65_521, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def values(shape: tuple[int, ...], name: str, numbers: Tensor) -> Tensor:
    """Weights that keep values near 1 on their way through a network; variances and scales of BN above 0."""
    count = prod(shape)
    taken = numbers.repeat(-(-count // len(numbers)))[:count].view(shape)
    if len(shape) == 1 and name in ("weight", "running_var"):
        return 0.5 + taken.sigmoid()
    return taken * prod(shape[1:]) ** -0.5


def fill(peer: nn.Module, *, thinly: bool) -> None:
    """Give a network on the meta device weights; with a 16th of the channels if that is asked for."""
    numbers = random_numbers()
    for module in peer.modules():
        if thinly and isinstance(module, nn.Conv2d) and module.groups == module.in_channels:
            module.groups = thin(module.groups)
        if thinly and isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(map(thin, module.normalized_shape))
        for name, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name != "num_batches_tracked":
                shape = tuple(thin(n) if thinly and axis < 2 else n for axis, n in enumerate(old.shape))
                numbers = numbers.roll(-prod(shape) - 1)
                new = values(shape, name, numbers)
                setattr(module, name, nn.Parameter(new, False) if isinstance(old, nn.Parameter) else new)


def given_weights(network: networks.Network, peer: nn.Module) -> networks.Network:
    """The network with the weights of the peer, by order and shape."""
    state = {key: tensor for key, tensor in peer.state_dict().items() if not tensor.is_meta}
    places = loading.places(network, loading.Contents(state, ordered=True))
    ours = network.state_dict()
    loading.give(network, {place: state[key].view(ours[place].shape) for place, key in places.items()})
    return network.double().eval()


def outputs(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize(
    ("name", "choice", "peer"),
    [row for row in WITH_PEERS if row[2] in SIZE_OF],
    ids=[peer for _, _, peer in WITH_PEERS if peer in SIZE_OF],
)
@torch.no_grad()
def test_outputs_are_those_of_an_independent_network(name: str, choice: str, peer: str) -> None:
    size, filters = SIZE_OF[peer]
    shape = tuple(map(int, size.split("x")))
    theirs = peer_on_meta(peer)
    fill(theirs, thinly=filters == "thin")
    architecture = zoo.bound(name, {"input": shape, **variables_of(choice)})[0]
    with torch.device("meta"):
        network = networks.Network(thinned(architecture) if filters == "thin" else architecture)
    given_weights(network, theirs)
    network.training = bool(network.architecture.results[1:])  # then it gives the auxiliary outputs too
    x = torch.randn(
        2 if prod(shape) < 50_000 else 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    found, wanted = outputs(network(x)), outputs(theirs(x))
    if name == "lenet5_original":  # the codes are ours
        codes = network.get_buffer("rbf1.codes")
        wanted = [-(wanted[0][:, None] - codes).square().sum(-1)]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.std() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_hdc_with_duc_in_thin() -> None:
    """For 32 classes, so that a 16th of the filters are 2 classes of 64 pixels each."""
    make = cast(Any, NETWORKS["hdc_duc"][0])
    with torch.device("meta"):
        theirs = make(classes=32).eval()
        network = networks.Network(thinned(zoo.bound("hdc_duc", {"input": (3, 64, 64), "classes": 32})[0]))
    fill(theirs, thinly=True)
    given_weights(network, theirs)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = network(x)
    assert found.shape == (1, 2, 64, 64)
    torch.testing.assert_close(found, theirs(x), rtol=1e-9, atol=1e-9)


def test_classes_are_a_choice() -> None:
    for name, shape in (("fcn8s", (5, 224, 224)), ("context_net", (5, 64, 64)), ("resnet18", (5,)), ("nin", (5,))):
        assert describe(name, classes=5).rows[-1].output_shape == shape
    both = describe("googlenet", classes=5, aux=1)
    assert both.architecture is not None
    assert [both[name].output_shape for name in both.architecture.results] == [(5,)] * 3


# ---------------------------------------------------------------------------------------------- where a text comes from

TEXTS = [
    "INPUT 1x4x4 -> FC 3",
    "input->fc",
    "INPUT → FC",
    "CONV -> FC",  # a text, though not a network
    "INPUT 1x4x4",
    "INPUT1x4x4",
    "  input  ",
    "INPUT 1x4x4 # alone",
    "INPUT# alone",
    "# a comment first\nINPUT 1x4x4",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_itself(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.read(text) == text


FILES = ["small.txt", "input.txt", "inputs/small.txt", "Input_1.net", "input-small", "lenet5.txt", "vgg 16", "größe"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("# größer\r\nINPUT 1x4x4 → FC 3\r\n", encoding="utf-8")
    for source in (name, path, str(path.absolute())):
        assert zoo.read(source) == "# größer\nINPUT 1x4x4 → FC 3\n"
        assert zoo.architecture(source) == parse("INPUT 1x4x4 -> FC 3")


def test_a_name_of_the_zoo_comes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lenet5").write_text("INPUT 1x4x4 -> FC 3", encoding="utf-8")
    assert zoo.read("lenet5") == zoo.text("lenet5")
    assert zoo.read("./lenet5") == "INPUT 1x4x4 -> FC 3"


def test_an_architecture_is_itself() -> None:
    network = parse("INPUT 1x4x4 -> FC 3")
    assert zoo.architecture(network) is network


UNKNOWN: list[tuple[Any, str]] = [
    ("vgg17", f"No network (nor a file) is called 'vgg17'. Did you mean 'vgg19'? {KNOWN}"),
    ("LeNet5", f"No network (nor a file) is called 'LeNet5'. Did you mean 'lenet5'? {KNOWN}"),
    ("mobile", f"No network (nor a file) is called 'mobile'. Did you mean 'mobilenet_v2'? {KNOWN}"),
    ("missing.txt", f"No network (nor a file) is called 'missing.txt'. {KNOWN}"),
    ("input.txt", f"No network (nor a file) is called 'input.txt'. {KNOWN}"),
    (Path("some") / "missing.txt", f"No network (nor a file) is called 'some/missing.txt'. {KNOWN}"),
    ("", f"No network (nor a file) is called ''. {KNOWN}"),
    (".", f"No network (nor a file) is called '.'. {KNOWN}"),
    ("FC 10", f"No network (nor a file) is called 'FC 10'. {KNOWN}"),
    ("a\0b", f"No network (nor a file) is called 'a\\x00b'. {KNOWN}"),
    ("n" * 5000, f"No network (nor a file) is called '{'n' * 5000}'. {KNOWN}"),
]


@pytest.mark.parametrize(("source", "message"), UNKNOWN, ids=[str(source)[:20] or "empty" for source, _ in UNKNOWN])
def test_what_is_neither_text_nor_name_nor_file(
    source: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        zoo.architecture(source)
    assert str(caught.value) == message


NO_SOURCES = [(5, "int"), (None, "NoneType"), (b"lenet5", "bytes"), (["lenet5"], "list"), (Conv(3, 8), "Conv")]


@pytest.mark.parametrize(("source", "kind"), NO_SOURCES)
def test_what_is_no_source_of_a_network_at_all(source: Any, kind: str) -> None:
    for make in (zoo.architecture, describe):
        with pytest.raises(OptionError) as caught:
            make(source)
        assert str(caught.value) == (
            f"a network is a notation text, a zoo name, a file with a text, or what striate.network made; got {kind}."
        )


def test_text_knows_the_zoo_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.txt").write_text("INPUT -> FC", encoding="utf-8")
    for name, hint in (
        ("vgg12", "Did you mean 'vgg19'? "),
        ("small.txt", ""),
        ("../zoo/lenet5", "Did you mean 'googlenet'? "),
    ):
        with pytest.raises(UnknownNameError) as caught:
            zoo.text(name)
        assert str(caught.value) == f"No network is called {name!r}. {hint}{KNOWN}"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "picture.txt").write_bytes(b"INPUT \xff\xd8 -> FC")
    with pytest.raises(DataError) as caught:
        zoo.read(path)
    reason = "'utf-8' codec can't decode byte 0xff in position 6: invalid start byte"
    assert str(caught.value) == f"{path}: cannot be read as a network text: {reason}."


def test_a_file_that_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "locked.txt").write_text("INPUT -> FC", encoding="utf-8")

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DataError) as caught:
        zoo.read(str(path))
    assert str(caught.value) == (
        f"{path}: cannot be read as a network text: [Errno 13] Permission denied: {str(path)!r}."
    )


def test_a_file_with_a_mistake_is_a_notation_error_with_the_line(tmp_path: Path) -> None:
    (path := tmp_path / "small.txt").write_text("# mine\nINPUT 1x4x4\n-> RELO\n", encoding="utf-8")
    with pytest.raises(NotationError) as caught:
        zoo.architecture(path)
    assert str(caught.value).startswith(f"In {path}: Line 3, column 4: No layer is called 'RELO'. Did you mean 'RELU'?")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.architecture(3)
    assert str(caught.value) == (
        "a network is a notation text, a zoo name, a file with a text, or what striate.network made; got int."
    )


def test_classes_and_a_size_can_both_be_changed() -> None:
    """VGG-16 on 64 x 64: the first fully connected layer reads 512 x 2 x 2, the last gives 10 scores."""
    wanted = 138_357_544 - 4096 * 512 * (7 * 7 - 2 * 2) - 4097 * 990
    assert describe("vgg16", input=(3, 64, 64), classes=10).totals.parameters == wanted
    assert describe("vgg16", (3, 64, 64), classes=10).totals.parameters == wanted


def test_classes_of_a_network_of_maps_are_refused() -> None:
    with pytest.raises(OptionError) as caught:
        describe("unet", classes=7)
    assert str(caught.value) == "classes=7 was given, but unet ends in no layer of scores; change its text."
