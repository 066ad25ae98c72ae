"""Each operator that a model dispatches, seen as it happens, and drafted as a node.

Tensors of the meta device go through the model, so nothing is computed and no memory is needed, whatever the size of
the image; the operators are seen where PyTorch dispatches them, and weights are replaced there, so the model is not
touched.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from . import shortcuts, units
from .aten import ACTIVATIONS, CHEAP, HANDLERS, PRODUCTS, Call, pointwise
from .aten_products import multiply_adds
from .combining import Sketch
from .drafts import Constant, Draft, Traced, Value
from .errors import GeometryError, OptionError, StriateError
from .factors import BATCH, plain
from .operations import Channels
from .shortcuts import arguments_of, caller, flattened, mapped, memory_of, spot_of, tensors_of
from .windows import Input, Shape, written

NUMBER = "_local_scalar_dense"  # what gives the value of a tensor to Python
SMALL = 2**16  # values of a constant up to which it is computed
COPIES = ("clone", "_to_copy", "copy", "copy_", "positive", "alias")  # made or not by sizes of one entry
REWRITTEN = "a part of it is written to through a view"
WORDS = {"native_layer_norm": "layer_norm", "native_group_norm": "group_norm", "native_batch_norm": "batch_norm"}


class Tracer(TorchDispatchMode):
    """Sees each operator, and drafts the nodes.

    Args:
        model: That runs.
        shape: Of one example.
        batch: Examples.
    """

    def __init__(self, model: nn.Module, shape: Shape, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.batch = model, batch
        self.names = {module: name for name, module in reversed(list(model.named_modules()))}
        self.parameters = {id(p): (name, p.numel()) for name, p in model.named_parameters()}
        self.found: dict[int, Traced] = {id(p): Constant(frozenset([id(p)])) for p in model.parameters()}
        self.memory = {memory_of(p): self.found[id(p)] for p in model.parameters()}
        self.sharing: dict[int, list[Tensor]] = {}
        self.parts: dict[int, tuple[Draft, frozenset[int]]] = {}
        self.overwritten: dict[int, tuple[Value, tuple[str, str]]] = {}
        self.stack: list[tuple[nn.Module, str]] = []
        self.quiet = 0
        self.sized_by = ""
        self.work: list[tuple[str, str]] = []
        self.last: Any = None
        self.spot = ""
        self.state = {memory_of(t) for t in (*model.parameters(), *model.buffers())}
        self.doubles: dict[int, tuple[Tensor, Tensor]] = {}
        self.thread = threading.get_ident()
        self.first = Draft("input", Input(shape), (), shape)
        self.sketch = Sketch(self.first, batch, self.place)

    @contextmanager
    def running(self) -> Iterator[Tracer]:
        """A block in which the model is in evaluation mode and all that it does is seen."""
        flags = [module for module in self.model.modules() if module.training]
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as after:
            after.callback(_train, flags)
            after.callback(torch.backends.mha.set_fastpath_enabled, fast)
            for module in flags:
                module.training = False
            after.callback(self.restore, self.weights())
            torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator for a whole transformer layer
            after.callback(modules.register_module_forward_pre_hook(self.enter).remove)
            after.callback(modules.register_module_forward_hook(self.leave).remove)
            for context in (torch.no_grad(), self, units.Functions(self)):
                after.enter_context(context)
            try:
                yield self
            except OptionError:
                raise
            except Exception as error:
                raise self.failure(error) from error

    def weights(self) -> list[tuple[dict[str, Any], str, nn.Parameter]]:
        """Put parameters of the meta device in the place of the model's, which are given back.

        PyTorch does not mind weights elsewhere than its input, but models do.
        """
        places = [
            (module._parameters, name, p)
            for module in self.model.modules()
            for name, p in module._parameters.items()
            if p is not None and p.device.type != "meta"
        ]
        for own, name, p in places:
            own[name] = self.double(p)  # type: ignore[assignment]
            self.found[id(own[name])] = self.found[id(p)]
        return places

    @staticmethod
    def restore(places: Sequence[tuple[dict[str, Any], str, nn.Parameter]]) -> None:
        """Put the model's parameters back."""
        for own, name, p in places:
            own[name] = p

    def start(self) -> Tensor:
        """The examples."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        like = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
        given = torch.empty((self.batch, *self.first.shape), dtype=like.dtype, device="meta")
        self.bind(given, Value(self.first, plain(self.first.shape, self.batch)))
        return given

    # ---------------------------------------------------------------------------------------------------------- places

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module begins."""
        if threading.get_ident() != self.thread:
            return
        outer = self.stack[-1][1] if self.stack else ""
        name = self.names.get(module, f"{outer}.{type(module).__name__}".lstrip("."))
        self.stack.append((module, name))
        if units.is_unit(module) and args and isinstance(self.of(args[0]), Value):
            self.quiet += 1

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module ends."""
        if threading.get_ident() != self.thread:
            return
        if units.is_unit(module) and args and isinstance(self.of(args[0]), Value):
            self.quiet -= 1
            if not self.quiet:
                given = {f"given{k}": entry for k, entry in enumerate(args)}
                known = [self.of(p) for p in module.parameters()]
                learned = frozenset[int]().union(*(c.learned for c in known if isinstance(c, Constant)))
                self.note(type(module).__name__, units.handler(module), given, output, learned, why=units.COSTS)
        while self.stack and self.stack.pop()[0] is not module:
            continue

    def place(self, kind: str) -> tuple[str, str]:
        """Name and source of what is computed now."""
        kind = WORDS.get(kind, kind).strip("_")
        if not self.stack:
            return kind, caller()
        module, name = self.stack[-1]
        own = type(module).__module__.startswith(("torch.nn.", "striate."))
        inner = [key for key, _ in module.named_children() if key != "parametrizations"]
        if (own and name and not inner) or units.is_unit(module):
            return name or kind, f"{name} ({type(module).__name__})".lstrip()
        return f"{name}.{kind}".lstrip("."), caller()

    def where(self) -> str:
        """The module that is at work."""
        module, name = self.stack[-1] if self.stack else (self.model, "")
        return f"{name} ({type(module).__name__})".removeprefix(" (").removesuffix(")" if not name else "")

    def failure(self, error: Exception) -> StriateError:
        """What to tell of a model that fails."""
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, NotImplementedError) or "fake impl" in words:
            name = self.last.name() if self.last is not None else "an operator"
            return OptionError(
                f"In {self.where()}, {self.spot}: the size of what {name} gives cannot be told from the sizes that it "
                "is given; for an operator of your own, tell it with torch.library.register_fake."
            )
        spot = spot_of(error)
        place = f"{self.where()}, {spot}" if spot else self.where()
        return GeometryError(f"In {place}, given {written(self.first.shape)}: {words}")

    # ---------------------------------------------------------------------------------------------------------- tensors

    def of(self, tensor: Any) -> Traced:
        """What a tensor is."""
        found = self.found.get(id(tensor)) if isinstance(tensor, Tensor) else Constant()
        if found is not None:
            return found
        memory = memory_of(tensor)
        if memory not in self.overwritten:
            return self.memory.get(memory, Constant())
        value, origin = self.overwritten[memory]
        made = self.sketch.opaque("copy", [value], tuple(tensor.shape), REWRITTEN, 0, "", origin)
        self.bind(tensor, made)
        return made

    def bind(self, tensor: Tensor, found: Traced) -> None:
        """Remember what a tensor is, and keep it, so that its id stays its own."""
        if id(tensor) not in self.found:
            self.sharing.setdefault(memory_of(tensor), []).append(tensor)
            if isinstance(found, Value) and isinstance(found.draft.operation, Channels):
                (whole,) = found.draft.inputs
                self.parts[id(tensor)] = whole, frozenset(found.draft.operation.numbers(whole.shape[0]))
        self.found[id(tensor)] = found

    def is_apart(self, one: Tensor, other: Tensor) -> bool:
        """Whether two tensors are different channels of one feature map."""
        parts = self.parts.get(id(one)), self.parts.get(id(other))
        return bool(parts[0] and parts[1] and parts[0][0] is parts[1][0] and not parts[0][1] & parts[1][1])

    def write(self, tensor: Tensor, found: Traced) -> None:
        """Remember what was written to a tensor, and what that makes of all that lie in the same memory."""
        old = self.of(tensor)
        self.bind(tensor, found)
        memory = memory_of(tensor)
        if isinstance(found, Value):
            self.overwritten[memory] = found, self.place("copy")
        rewritten: dict[Draft, Draft] = {}
        if isinstance(old, Value) and isinstance(found, Value) and _same_map(old, found):
            rewritten[old.draft] = found.draft
        for other in self.sharing[memory]:
            before = self.found[id(other)]
            inputs = [entry for entry in (before, found) if isinstance(entry, Value)]
            if other is tensor or not inputs or self.is_apart(tensor, other):
                continue
            if isinstance(before, Value):
                if before.draft not in rewritten:
                    reading = (REWRITTEN,) * len(inputs)
                    rewritten[before.draft] = self.sketch.node("copy", None, inputs, before.draft.shape, reading)
                self.found[id(other)] = replace(before, draft=rewritten[before.draft])
            else:
                self.found[id(other)] = self.sketch.opaque("copy", inputs, tuple(other.shape), REWRITTEN)

    # -------------------------------------------------------------------------------------------------------- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See an operator."""
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        tensors = [entry for entry in flattened((*args, *kwargs.values())) if isinstance(entry, Tensor)]
        output = self.sized(func, tensors, args, kwargs)
        if tensors and not self.quiet:
            name = func.overloadpacket.__name__
            if name not in COPIES and (func.overloadpacket in flop_registry or torch.Tag.pointwise in func.tags):
                self.work.append((name, self.stack[-1][1] if self.stack else ""))
            self.see(func, args, kwargs, output)
        return output

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: that would import the compiler at the first operator, which takes longer than the largest model."""
        return False

    def sized(self, func: Any, tensors: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
        """The outputs of an operator: their sizes only, but for small constants that the model makes for itself."""
        if not tensors:
            return self.made(func, args, kwargs)
        if all(t.device.type != "meta" for t in tensors):
            if self.is_harmless(func, tensors):
                return func(*args, **kwargs)
        elif func.overloadpacket.__name__ == NUMBER:
            raise OptionError(self.told(tensors[0]))
        doubled = {id(t): self.double(t) for t in tensors if t.device.type != "meta"}
        if "device" in kwargs:
            kwargs = kwargs | {"device": torch.device("meta")}
        if doubled:
            args, kwargs = mapped(args, doubled), {name: mapped(entry, doubled) for name, entry in kwargs.items()}
        shortcut = shortcuts.SIZES.get(func)
        known = None if shortcut is None else shortcut(*args, **kwargs)
        try:
            output = func(*args, **kwargs) if known is None else known
        except (NotImplementedError, RuntimeError):
            self.last, self.spot = func, caller()
            raise
        first = next((t for t in tensors if doubled.get(id(t)) is output), None)
        return output if first is None else first  # what is written in place is the model's own tensor still

    def made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A new tensor that depends on none: its values matter where they are few and not random."""
        asked = kwargs.get("device")
        if "device" not in {name for name, _, _ in arguments_of(func)} or (
            asked and torch.device(asked).type == "meta"
        ):
            return func(*args, **kwargs)
        output = func(*args, **kwargs | {"device": torch.device("meta")})
        few = isinstance(output, Tensor) and output.numel() <= SMALL
        random = torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **kwargs | {"device": torch.device("cpu")}) if few and not random else output

    def is_harmless(self, func: Any, tensors: Sequence[Tensor]) -> bool:
        """Whether an operator may be run: it computes little, changes nothing of the model, and sees no input."""
        names = arguments_of(func)
        views = func.is_view or func.overloadpacket.__name__ == NUMBER
        if any(isinstance(self.of(t), Value) for t in tensors) or torch.Tag.nondeterministic_seeded in func.tags:
            return False
        if views and not any(writes for _, _, writes in names):
            return True
        return all(memory_of(t) not in self.state and t.numel() <= SMALL for t in tensors)

    def double(self, tensor: Tensor) -> Tensor:
        """A tensor of the same size that holds nothing."""
        if id(tensor) not in self.doubles:
            if tensor.layout is not torch.strided:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            else:
                empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
                self.memory[memory_of(empty)] = self.of(tensor)
            self.doubles[id(tensor)] = tensor, empty
        return self.doubles[id(tensor)][1]

    def told(self, tensor: Tensor) -> str:
        """Why the model cannot go on."""
        place = self.where()
        return (
            f"In {place}, {caller()}: what the model does next depends on the value of a tensor, and tracing knows "
            "sizes only; let the model decide by sizes, or trace the parts before and behind it."
        )

    def see(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Note what an operator makes of what it is given."""
        names = arguments_of(func)
        given = {name: default for name, default, _ in names}
        given.update(zip(given, args, strict=False))
        given.update(kwargs)
        written = [given[name] for name, _, writes in names if writes and isinstance(given[name], Tensor)]
        name = func.overloadpacket.__name__
        if written and name.endswith("_"):
            name = name.rstrip("_")
        aten = func.namespace == "aten"
        if not aten:
            name = f"{func.namespace}::{name}"
        handler = HANDLERS.get(name)
        elementwise = aten and (torch.Tag.pointwise in func.tags or name in ACTIVATIONS)
        if name == "copy" and written:
            given = {"self": given["src"]}
            handler = _copied
        if handler is None and elementwise:
            handler = pointwise
        why = (
            ""
            if elementwise or name in CHEAP
            else f"nobody has told what {name if '::' in name else f'aten::{name}'} costs"
        )
        self.note(name, handler, given, output, written=written, why=why, func=func, again=(func, args, kwargs))

    def note(
        self,
        name: str,
        handler: Any,
        given: dict[str, Any],
        output: Any,
        learned: frozenset[int] = frozenset(),
        *,
        written: Sequence[Tensor] = (),
        why: str = "",
        func: Any = None,
        again: tuple[Any, Any, dict[str, Any]] | None = None,
    ) -> None:
        """Draft the node of an operator, and remember what its outputs are."""
        outputs = [entry for entry in flattened([output]) if isinstance(entry, Tensor)]
        outs = tuple(tuple(t.shape) for t in outputs or written)
        call = Call(self.sketch, name, given, outs, self.of, in_place=bool(written))
        tensors = call.tensors()
        known = [self.of(tensor) for tensor in tensors]
        learned = learned.union(*(entry.learned for entry in known if isinstance(entry, Constant)))
        values = [entry for entry in known if isinstance(entry, Value)]
        if name in ("fill", "zero", "uniform", "normal") or not values:
            found: Sequence[Traced] = [Constant(learned)] * max(len(outputs), 1)
        else:
            found = self.drafted(call, handler, values, why, func, again, output)
        if learned and values and self.sketch.drafts[-1].name != "input" and isinstance(found[0], Value):
            found[0].draft.learned |= learned
        for tensor, entry in zip(outputs, [*found, *[found[0]] * len(outputs)], strict=False):
            if not any(tensor is w for w in written) and (isinstance(entry, Value) or entry.learned):
                self.bind(tensor, entry)
        for tensor in written:
            self.write(tensor, found[0])

    def drafted(
        self, call: Call, handler: Any, values: list[Value], why: str, func: Any, again: Any, output: Any
    ) -> Sequence[Traced]:
        """What the outputs are: as its handler says, or else of unknown reads."""
        reason = f"what {call.name} reads is not known here"
        if handler is not None:
            try:
                found = handler(call)
                found = list(found) if isinstance(found, Sequence) else [found]
                fits = all(e.sizes == n for e, n in zip(found, call.outs, strict=False) if isinstance(e, Value))
                if fits or not isinstance(found[0], Value) or found[0].sizes == call.out:
                    return [self._marked(call, entry, values) for entry in found]
            except GeometryError as error:
                reason = f"{call.name}: {error}"
            if call.name not in PRODUCTS and func is not None:
                why = ""
        macs: int | None = None if why else 0
        if (known := multiply_adds(call)) is not None:
            macs, why = known, ""
        if func is not None and (formula := flop_registry.get(func.overloadpacket)) is not None:
            macs, why = self._counted(formula, call, output), ""
        places = self.examples(again, call.outs)
        first = self.sketch.opaque(call.name, values, call.out, reason, macs, why, place=places.get(0))
        found = [first]
        for k, out in enumerate(call.outs[1:], 1):
            like = next((entry for entry in found if entry.sizes == out), None)
            found.append(like or self.sketch.opaque(call.name, [first], out, reason, 0, place=places.get(k)))
        return found

    def examples(self, again: Any, outs: Sequence[Shape]) -> dict[int, int]:
        """Which axis of each output the examples stand along (-1: none), where one more of them tells."""
        if again is None or self.batch == 1:
            return {}
        func, args, kwargs = again
        more: dict[int, Tensor] = {}
        for tensor in (t for t in flattened((*args, *kwargs.values())) if isinstance(t, Tensor)):
            found = self.of(tensor)
            if isinstance(found, Value):
                sizes = [prod(n + (a == BATCH) for a, n in ((f.axis, f.size) for f in axis)) for axis in found.layout]
                more[id(tensor)] = torch.empty(sizes, dtype=tensor.dtype, device="meta")
            elif tensor.device.type != "meta":
                more[id(tensor)] = self.double(tensor)
        self.quiet += 1
        try:
            with _disable_current_modes():
                given = {name: mapped(entry, more) for name, entry in kwargs.items()}
                output = func(*mapped(args, more), **given)
        except Exception:  # sizes among its arguments speak of as many examples as there were
            return {}
        finally:
            self.quiet -= 1
        told = {entry for entry in flattened((*args, *kwargs.values())) if isinstance(entry, int)}
        places = {}
        for k, (entry, out) in enumerate(zip(tensors_of(output), outs, strict=False)):
            grown = [axis for axis, (n, m) in enumerate(zip(out, entry.shape, strict=False)) if n != m]
            if len(grown) == 1 and out[grown[0]] % self.batch == 0:
                places[k] = grown[0]
            elif not grown and not any(n in told for n in out if n % self.batch == 0):
                places[k] = -1
        return places

    def _counted(self, formula: Any, call: Call, output: Any) -> int:
        return int(formula(*call.given.values(), out_val=output)) // 2 // self.batch

    def _marked(self, call: Call, found: Traced, values: list[Value]) -> Traced:
        """A view remembers where it was made."""
        if not isinstance(found, Value) or all(found.draft is not value.draft for value in values):
            return found
        same = any(found.layout == value.layout for value in values)
        return found if same else replace(found, origin=self.place(call.name))


def _train(flags: Sequence[nn.Module]) -> None:
    for module in flags:
        module.training = True


def _same_map(old: Value, new: Value) -> bool:
    """Whether each value of a feature map was replaced by one of another, in its place."""
    return (old.layout, old.draft.shape) == (new.layout, new.draft.shape)


def _copied(call: Call) -> Traced:
    """One tensor written over another."""
    value = call.value("self")
    return HANDLERS["expand"](call) if value.sizes != call.out else value  # type: ignore[return-value]
