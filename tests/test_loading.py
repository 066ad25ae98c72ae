"""Weights of other packages: each tensor finds its place, or the file is refused in words."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import striate
from striate import checkpoint, loading, zoo
from striate.errors import CheckpointError, OptionError, UnknownNameError
from striate.loading import Contents

from .peers_zoo import build

State = dict[str, Tensor]
SMALL = "INPUT 1x6x6 -> CONV3-2 padding=0 -> BN -> RELU -> FC 3"


def small() -> nn.Module:
    """The layers of SMALL by torch, with numbers that tell them apart."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return made


def write_torch(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def write_safe(path: Path, state: State) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, path)
    return path


FORMATS = [("weights.pth", write_torch), ("weights.safetensors", write_safe)]
each_format = pytest.mark.parametrize(("name", "write"), FORMATS, ids=["torch", "safetensors"])


def refusal(name: str, path: Path, **variables: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        zoo.load(name, path, **variables)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------- round trips


@each_format
def test_a_small_network(name: str, write: Callable[[Path, State], Path], tmp_path: Path, close: Any) -> None:
    theirs = small()
    network = zoo.load(SMALL, write(tmp_path / name, theirs.state_dict()))
    assert not network.training
    x = torch.rand(5, 1, 6, 6)
    close(network(x), theirs(x))
    assert network.get_buffer("bn1.num_batches_tracked") == 0
    assert all(parameter.requires_grad for parameter in network.parameters())


@each_format
@pytest.mark.parametrize("peer", ["lenet5", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x1_0"])
def test_networks_of_the_zoo(
    name: str, write: Callable[[Path, State], Path], peer: str, tmp_path: Path, close: Any
) -> None:
    torch.manual_seed(0)
    theirs = build(peer).eval()
    network = zoo.load(peer, write(tmp_path / name, theirs.state_dict()))
    x = torch.rand(1, *network.input_shape)
    with torch.no_grad():
        close(network(x), theirs(x))


def test_auxiliary_heads_and_classes(tmp_path: Path) -> None:
    theirs = striate.network("m5", classes=3)
    path = write_torch(tmp_path / "m5.pth", renamed(theirs.state_dict()))
    found = zoo.load("m5", path, classes=3)
    for one, other in zip(found.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_load_is_found_where_it_is_published() -> None:
    assert zoo.load is loading.load
    with pytest.raises(AttributeError) as caught:
        _ = zoo.store
    assert str(caught.value) == "module 'striate.zoo' has no attribute 'store'."


def renamed(state: State) -> State:
    """The same tensors in the same order, under names that say nothing but their layers and roles."""
    layers = {key.rpartition(".")[0]: None for key in state}
    number = {layer: f"part{index}" for index, layer in enumerate(layers)}
    return {f"{number[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensor for key, tensor in state.items()}


def test_fixed_codes_are_there_without_a_file_that_has_them(tmp_path: Path) -> None:
    own = striate.network("lenet5_original").eval()
    without = {key: tensor for key, tensor in renamed(own.state_dict()).items() if not key.endswith("codes")}
    x = torch.rand(2, 1, 32, 32)
    for path in (
        write_torch(tmp_path / "without.pth", without),
        write_torch(tmp_path / "own.pth", own.state_dict()),
        write_safe(tmp_path / "own.safetensors", own.state_dict()),
    ):
        assert torch.equal(zoo.load("lenet5_original", path)(x), own(x))


# --------------------------------------------------------------------------------------------------- names and orders


def test_names_that_are_the_network_s_own_decide(tmp_path: Path) -> None:
    """Whatever the order: both convolutions have the same shape."""
    text = "INPUT 2x4x4 -> CONV3-2 -> CONV3-2"
    own = striate.network(text)
    mixed = {key: own.state_dict()[key] for key in ("conv2.bias", "conv1.weight", "conv1.bias", "conv2.weight")}
    for path in (write_torch(tmp_path / "own.pth", mixed), write_safe(tmp_path / "own.safetensors", mixed)):
        found = zoo.load(text, path).state_dict()
        assert all(torch.equal(found[key], mixed[key]) for key in mixed)


def test_a_checkpoint_of_a_run_holds_its_network(bars_run: Any) -> None:
    """Beside the state of its optimiser, which is left aside."""
    saved = checkpoint.load(bars_run.checkpoint)
    found = zoo.load(saved.notation, bars_run.checkpoint)
    assert saved.optimizer
    for one, other in zip(found.parameters(), saved.network().parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{key}": tensor for key, tensor in state.items()}},
    ],
)
def test_what_wrappers_add_is_taken_off(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    own = striate.network(SMALL)
    found = zoo.load(SMALL, write_torch(tmp_path / "wrapped.pth", wrap(own.state_dict())))
    assert torch.equal(found.get_parameter("fc1.weight"), own.get_parameter("fc1.weight"))


def test_a_linear_layer_is_a_window_over_a_whole_map(tmp_path: Path) -> None:
    """(O, C, 1, 1), and timm's VGG: its first linear layer is a convolution as large as the map."""
    state = small().state_dict()
    wanted = state["4.weight"]
    for shape in ((3, 32), (3, 2, 4, 4), (3, 32, 1, 1)):
        state["4.weight"] = wanted.view(shape)
        found = zoo.load(SMALL, write_torch(tmp_path / "window.pth", state))
        assert torch.equal(found.get_parameter("fc1.weight"), wanted)


def on_meta(peer: str) -> State:
    with torch.device("meta"):
        return {key: tensor for key, tensor in build(peer).state_dict().items() if not key.endswith("tracked")}


def resnet_names(blocks: Iterable[int], convolutions: int) -> list[str]:
    """Layers in torchvision's order: of ResNet-18 with two convolutions in a block, of ResNet-50 with three."""
    names = ["conv1", "bn1"]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            names += [f"{place}.{kind}{n}" for n in range(1, convolutions + 1) for kind in ("conv", "bn")]
            if block == 0 and (stage > 1 or convolutions == 3):
                names += [f"{place}.downsample.0", f"{place}.downsample.1"]
    return [*names, "fc"]


INCEPTION = {
    "a": "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    "b": "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    "c": "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    "d": "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    "e": "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}
MIXED = "a5b a5c a5d b6a c6b c6c c6d c6e d7a e7b e7c"


def inception_names() -> list[str]:
    """Layers of Inception-v3 in torchvision's order."""
    names = [f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
    for block in MIXED.split():
        names += [f"Mixed_{block[1:]}.branch{branch}" for branch in INCEPTION[block[0]].split()]
    return [f"{name}.{part}" for name in names for part in ("conv", "bn")] + ["fc"]


NAMED = {
    "resnet18": resnet_names((2, 2, 2, 2), 2),
    "resnet50": resnet_names((3, 4, 6, 3), 3),
    "inception_v3": inception_names(),
}


@pytest.mark.parametrize("name", NAMED)
def test_names_of_torchvision_tell_their_order(name: str) -> None:
    """As in a safetensors file, which sorts them; in ResNet-50 two 1x1 of one block have the same shape."""
    state = on_meta(name)
    layers = iter(NAMED[name])
    theirs = {old: next(layers) for old in dict.fromkeys(key.rpartition(".")[0] for key in state)}
    state = {f"{theirs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensor for key, tensor in state.items()}
    built = loading.on_meta(name, {})
    in_order = loading.places(built, Contents(state, ordered=True))
    by_names = loading.places(built, Contents({key: state[key] for key in sorted(state)}, ordered=False))
    assert by_names == in_order
    assert [*in_order.values()] == [*state]


PEERS = ["vgg16_bn", "googlenet_paper", "inception_v4", "xception", "seresnet50", "preresnet18", "densenet121", "unet"]


@pytest.mark.parametrize("name", [*PEERS, "convnext_tiny", "replknet31b", "mobilenet_v1", "shufflenet_v1", "c3d"])
def test_names_of_independent_networks_tell_their_order(name: str) -> None:
    state = on_meta(name)
    built = loading.on_meta(name, {})
    in_order = loading.places(built, Contents(state, ordered=True))
    assert loading.places(built, Contents({key: state[key] for key in sorted(state)}, ordered=False)) == in_order


def test_a_sorted_torch_file_is_no_order(tmp_path: Path) -> None:
    """Alphabetically the shift would take the place of the scale; the names of the two are known."""
    theirs = nn.Sequential(nn.BatchNorm2d(2)).eval()
    state = theirs.state_dict()
    state["0.weight"].fill_(3)
    path = write_torch(tmp_path / "sorted.pth", {key: state[key] for key in sorted(state)})
    found = zoo.load("INPUT 2x3x3 -> BN", path)
    assert found.get_parameter("bn1.weight").tolist() == [3, 3]
    assert found.get_parameter("bn1.bias").tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------------- mismatches


def test_another_number_of_classes(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "ten.pth", small().state_dict())
    assert refusal(SMALL.replace("FC 3", "FC 4"), path) == (
        f"{path}: its 8 tensors do not fit the network's 8: tensor 7 is 4.weight 3x32 in the file, fc1.weight 4x32 in "
        "the network."
    )
    state = renamed(striate.network("m5", classes=3).state_dict())
    state = {key: tensor for key, tensor in state.items() if not key.endswith("tracked")}
    for made in (write_torch(tmp_path / "m5.pth", state), write_safe(tmp_path / "m5.safetensors", state)):
        assert refusal("m5", made).endswith(" The file ends in 3 classes, the network in 10: load with classes=3.")


def test_auxiliary_heads_in_the_file() -> None:
    built = loading.on_meta("googlenet", {})
    contents = Contents(on_meta("googlenet_aux"), ordered=True)
    with pytest.raises(CheckpointError) as caught:
        loading.places(built, contents)
    assert str(caught.value) == (
        "its 305 tensors do not fit the network's 287: tensor 286 is heads.0.1.0.weight 128x512 in the file, "
        "fc1.weight 1000x1024 in the network."
    )
    assert loading.hint("googlenet", {}, built, contents) == " It fits with aux=1."
    with_heads = loading.on_meta("googlenet", {"aux": 1})
    without = Contents(on_meta("googlenet"), ordered=False)
    assert loading.hint("googlenet", {"aux": 1}, with_heads, without) == " It fits with aux=0."


def test_another_network_of_the_zoo() -> None:
    built = loading.on_meta("resnet18", {})
    assert loading.hint("resnet18", {}, built, Contents(on_meta("resnet34"), ordered=True)) == " It fits resnet34."


PARTINGS = [
    ("INPUT 1x6x6 -> CONV3-2 padding=0", "the file goes on with 1.weight 2 where the network ends.", True),
    (
        SMALL + " -> RELU -> FC 2",
        "the file ends where the network goes on with fc2.weight 2x3.",
        True,
    ),
    (
        SMALL.replace("BN", "LN"),
        "tensor 5 is 1.running_mean 2 in the file, fc1.weight 3x32 in the network.",
        True,
    ),
    ("INPUT 1x6x6 -> CONV3-2 padding=0", "no layer of the network is left for 1.weight 2 of the file.", False),
    (SMALL + " -> RELU -> FC 2", "no layer of the file is left for fc2.weight 2x3 of the network.", False),
    (
        "INPUT 1x6x6 -> BN -> CONV3-2 padding=0 -> FC 3",
        "no layer of the file is left for bn1.weight 1 of the network.",
        False,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "ordered"), PARTINGS)
def test_the_place_where_file_and_network_part(text: str, message: str, ordered: bool, tmp_path: Path) -> None:
    write, name = (write_torch, "weights.pth") if ordered else (write_safe, "weights.safetensors")
    path = write(tmp_path / name, small().state_dict())
    wanted = len(loading.wanted_tensors(striate.network(text)))
    assert refusal(text, path) == f"{path}: its 8 tensors do not fit the network's {wanted}: {message}"


def test_no_order_that_the_names_permit(tmp_path: Path) -> None:
    theirs = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    path = write_safe(tmp_path / "other.safetensors", theirs.state_dict())
    text = "INPUT 4x1x1 -> FC 3 -> SUM[FC 3 | IDENTITY]"
    swapped = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4), "1.weight": torch.zeros(3, 4)}
    path = write_safe(tmp_path / "swapped.safetensors", {**swapped, "1.bias": torch.zeros(3)})
    assert refusal(text.replace("SUM[FC 3 | IDENTITY]", "FC 4"), path) == (
        f"{path}: its 4 tensors do not fit the network's 4: their shapes are the same, but in no order that the file's "
        "names permit."
    )


def test_more_than_one_way_is_refused(tmp_path: Path) -> None:
    """Two layers of one shape, whose names tell no order; a torch file keeps it."""
    theirs = {f"{name}.{role}": torch.rand(2, *size) for name in ("second", "first")
              for role, size in (("weight", (2,)), ("bias", ()))}  # fmt: skip
    text = "INPUT 2x1x1 -> FC 2 -> FC 2"
    path = write_safe(tmp_path / "two.safetensors", theirs)
    assert refusal(text, path) == (
        f"{path}: its tensors fit the network in more than one way: fc1.weight may be first.weight or second.weight. "
        "The file does not keep the order of its layers; save the state dict with torch.save, which does."
    )
    found = zoo.load(text, write_torch(tmp_path / "two.pth", theirs))
    assert torch.equal(found.get_parameter("fc1.weight"), theirs["second.weight"])


def test_names_that_leave_too_many_orders(tmp_path: Path) -> None:
    names = ["".join(chr(97 + (n >> bit & 1)) for bit in range(5)) for n in range(20)]
    path = write_safe(tmp_path / "many.safetensors", {f"{name}.weight": torch.rand(2, 2) for name in names})
    text = "INPUT 2x1x1 -> [FC 2 bias=no]*20"
    assert refusal(text, path) == f"{path}: its names leave too many orders of its layers to try."


def test_roles_that_differ_are_no_fit(tmp_path: Path) -> None:
    """A batch normalisation without scale and shift has as many tensors of the same shape as a SCALE."""
    theirs = nn.Sequential(nn.BatchNorm2d(2, affine=False)).state_dict()
    for path in (write_torch(tmp_path / "bn.pth", theirs), write_safe(tmp_path / "bn.safetensors", theirs)):
        message = refusal("INPUT 2x3x3 -> SCALE", path)
        assert message.startswith(f"{path}: its 2 tensors do not fit the network's 2: ")


# --------------------------------------------------------------------------------------------------------- number types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor
             for key, tensor in small().state_dict().items()}  # fmt: skip
    for path in (write_torch(tmp_path / "half.pth", state), write_safe(tmp_path / "half.safetensors", state)):
        found = zoo.load(SMALL, path).get_parameter("fc1.weight")
        assert found.dtype is torch.float32
        assert torch.equal(found, state["4.weight"].float())


@each_format
def test_whole_numbers_are_no_weights(name: str, write: Callable[[Path, State], Path], tmp_path: Path) -> None:
    state = small().state_dict() | {"4.weight": torch.ones(3, 32, dtype=torch.int8)}
    path = write(tmp_path / name, state)
    assert refusal(SMALL, path) == f"{path}: 4.weight holds int8; weights are floating-point numbers."


def test_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    """Also those that are none; and the network has memory of its own."""
    state = small().state_dict() | {"4.bias": torch.tensor([float("nan"), float("inf"), 0.0])}
    state["0.weight"] = torch.rand(1, 1, 1, 1).expand(2, 1, 3, 3)
    found = zoo.load(SMALL, write_torch(tmp_path / "nan.pth", state))
    assert torch.equal(found.get_parameter("fc1.bias").isnan(), torch.tensor([True, False, False]))
    assert found.get_parameter("conv1.weight").is_contiguous()


# -------------------------------------------------------------------------------------------------------- hostile files


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


OBJECTS = "it is damaged, or holds Python objects, which are never loaded."


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    paths = [write_torch(tmp_path / "attack.pth", {"weight": Attack(trace)}), tmp_path / "plain.pkl"]
    paths[1].write_bytes(pickle.dumps(Attack(trace)))
    paths.append(write_torch(tmp_path / "model.pth", small()))
    for path in paths:
        message = refusal(SMALL, path)
        assert message.startswith(f"{path}: cannot be read as tensors (")
        assert message.endswith(f"); {OBJECTS}")
        assert "\n" not in message
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 1, 9, 300, -100])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_torch_file(keep: int, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(small().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert isinstance(zoo.load(SMALL, path), nn.Module)
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(SMALL, path)
    assert message.startswith(f"{path}: cannot be read as tensors (")
    assert message.endswith(f"); {OBJECTS}")


def test_a_compressed_archive_is_not_unfolded(tmp_path: Path) -> None:
    path, bomb = write_torch(tmp_path / "weights.pth", small().state_dict()), tmp_path / "bomb.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert refusal(SMALL, bomb) == (
        f"{bomb}: its entries are compressed, as torch.save never does; it is not unfolded."
    )


def test_a_huge_tensor_out_of_one_number_takes_no_memory(tmp_path: Path) -> None:
    state = small().state_dict() | {"4.weight": torch.ones(1).expand(3 << 20, 32 << 20)}
    path = write_torch(tmp_path / "huge.pth", state)
    assert "tensor 7 is 4.weight 3145728x33554432 in the file" in refusal(SMALL, path)


def header(length: int, text: bytes) -> bytes:
    return struct.pack("<Q", length) + text


def outside() -> bytes:
    text = json.dumps({"a.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}}).encode()
    return header(len(text), text)


@pytest.mark.parametrize(
    "content",
    [b"", b"1234", header(1 << 62, b"{}"), header(99_999_999, b"{}"), header(4, b"nope"), outside()],
    ids=["empty", "short", "endless", "long", "no-json", "outside"],
)
def test_a_damaged_safetensors_file(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "weights.safetensors").write_bytes(content)
    message = refusal(SMALL, path)
    assert message.startswith(f"{path}: cannot be read as safetensors (")
    assert message.endswith("); it is damaged or of another kind.")


def test_a_safetensors_file_by_any_name(tmp_path: Path) -> None:
    state = small().state_dict()
    path = write_safe(tmp_path / "weights.bin", state)
    assert torch.equal(zoo.load(SMALL, path).get_parameter("fc1.weight"), state["4.weight"])


NO_STATE: list[tuple[Any, str]] = [
    ([1, 2], "holds no state dict, which is names with tensors."),
    ({}, "holds no state dict, which is names with tensors."),
    ({"epoch": 3}, "holds no state dict, which is names with tensors."),
    ({1: torch.ones(2)}, "holds no state dict, which is names with tensors."),
    ({"state_dict": {"a": 1}}, "holds no state dict, which is names with tensors."),
    ({"a": torch.ones(2, 2).to_sparse()}, "holds no state dict, which is names with tensors."),
    ({"a": torch.empty(2, device="meta")}, "holds no state dict, which is names with tensors."),
    ({"bn.num_batches_tracked": torch.ones(())}, "holds no weights."),
    ({"a." * 51 + "weight": torch.ones(2)}, "holds names of more than 50 parts."),
]


@pytest.mark.parametrize(("content", "message"), NO_STATE)
def test_what_is_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pth", content)
    assert refusal(SMALL, path) == f"{path}: {message}"


def test_a_missing_file_and_wrong_names(tmp_path: Path) -> None:
    path = tmp_path / "none.pth"
    assert refusal(SMALL, path) == f"{path}: there is no such file."
    assert refusal(SMALL, tmp_path) == f"{tmp_path}: there is no such file."
    with pytest.raises(UnknownNameError, match=r"'resnet51'\. Did you mean 'resnet50'"):
        zoo.load("resnet51", path)
    with pytest.raises(OptionError, match="no variable 'depth'"):
        zoo.load("resnet50", path, depth=3)


def test_a_file_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_torch(tmp_path / "locked.pth", small().state_dict())

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(SMALL, path) == f"{path}: cannot be read ([Errno 13] Permission denied)."
