"""PyTorch's private names that the package relies on: all in one table, which says what to use if one is gone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._decomp
import torch._functorch.utils
import torch._subclasses.fake_tensor
import torch.utils._python_dispatch
import torch.utils._pytree

PACKAGE = Path(__file__).parent.parent / "src" / "striate"

# What each tells, and what tells the same where it is gone: slower, or with less.
INSTEAD = {
    "torch._C._are_functorch_transforms_active": "torch._C._functorch.peek_interpreter_stack() is not None",
    "torch._C._disabled_torch_function_impl": "a __torch_function__ under torch._C.DisableTorchFunctionSubclass",
    "torch._C._functorch.peek_interpreter_stack": "torch._C._are_functorch_transforms_active()",
    "torch._C._get_deterministic_algorithms": "torch.are_deterministic_algorithms_enabled()",
    "torch._C._get_mkldnn_deterministic": "torch.backends.mkldnn.deterministic",
    "torch._C._get_mkldnn_enabled": "torch.backends.mkldnn.enabled",
    "torch._C._is_any_autocast_enabled": "torch.is_autocast_enabled(device) for cpu and cuda",
    "torch._C._is_tracing": "torch.jit.is_tracing()",
    "torch._C._len_torch_dispatch_stack": "torch.utils._python_dispatch._get_current_dispatch_mode() is not None",
    "torch._decomp.register_decomposition": "leave it out: compilers then keep the operator as one node",
    "torch._functorch.utils.unwrap_dead_wrappers": "the autograd function's own apply, slower",
    "torch._subclasses.fake_tensor.FakeTensor": "torch.compiler.is_compiling(), which is false under a FakeTensorMode",
    "torch.nn.modules.batchnorm._BatchNorm": "the classes BatchNorm1d, BatchNorm2d, BatchNorm3d and SyncBatchNorm",
    "torch.utils._python_dispatch.TorchDispatchMode": "forward hooks on every module",
    "torch.utils._python_dispatch._disable_current_modes": "leave the mode, and enter it again behind the call",
    "torch.utils._python_dispatch._get_current_dispatch_mode": "torch._C._len_torch_dispatch_stack() > 0",
    "torch.utils._pytree.tree_flatten": "torch.utils.pytree, or a walk over tuples, lists and dicts",
    "torch.utils._pytree.tree_map": "torch.utils.pytree, or a walk over tuples, lists and dicts",
}


def private(path: Path) -> Iterator[str]:
    """Dotted names of torch's with a part that begins with one underline, imported or looked up."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
            names = [ast.unparse(node)]
        yield from (n for n in names if any(part[0] == "_" and part[:2] != "__" for part in n.split(".")))


def test_every_private_name_stands_in_the_table_and_no_other() -> None:
    used = {name for path in PACKAGE.rglob("*.py") for name in private(path)}
    whole = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    assert whole == set(INSTEAD), "add a name with what to use instead of it, or take one out that is not used any more"


@pytest.mark.parametrize("name", INSTEAD)
def test_this_version_of_pytorch_has_it(name: str) -> None:
    found: Any = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    assert found is not None, f"{name} is gone from PyTorch {torch.__version__}; instead: {INSTEAD[name]}."
