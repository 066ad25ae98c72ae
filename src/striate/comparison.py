"""Networks side by side: what each costs, as shares of the last one; and one text for many values of its variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from . import tables
from .analysis import Description, bytes_text, count_text, describe
from .errors import OptionError
from .operations import written

MOST_NETWORKS = 1000


@dataclass(frozen=True)
class Comparison:
    """Networks side by side.

    Args:
        descriptions: By name, in order.
    """

    descriptions: Mapping[str, Description]

    def figures(self) -> list[dict[str, Any]]:
        """For each network what it needs and sees: numbers, None for what is unknown."""
        return [{"network": name} | _figures(found) for name, found in self.descriptions.items()]

    def shares(self) -> list[dict[str, float | None]]:
        """Each network's figures over the last one's: parameters, multiply-adds and memory."""
        found = self.figures()
        names = ("parameters", "macs", "activation_bytes", "inference_bytes", "training_bytes")
        return [{name: _share(row[name], found[-1][name]) for name in names} for row in found]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON."""
        return {"networks": self.figures(), "shares_of_the_last": self.shares()}

    def cells(self) -> list[dict[str, str]]:
        """The table as text cells: one line for each network."""
        rows = []
        for figures, shares in zip(self.figures(), self.shares(), strict=True):
            rows.append(
                {
                    "network": figures["network"],
                    "layers": str(figures["layers"]),
                    "parameters": _with_share(count_text(figures["parameters"]), shares["parameters"]),
                    "multiply-adds": _with_share(count_text(figures["macs"]), shares["macs"]),
                    "memory": _with_share(bytes_text(figures["activation_bytes"]), shares["activation_bytes"]),
                    "to predict": _memory(figures["inference_bytes"]),
                    "to train": _memory(figures["training_bytes"]),
                    "output": written(figures["output_shape"]),
                    "sees": "unknown" if figures["receptive_field"] is None else written(figures["receptive_field"]),
                }
            )
        return rows

    def csv(self) -> str:
        """The figures as CSV."""
        return tables.as_csv(self.figures())

    def page(self) -> str:
        """The table as a page for a browser."""
        return tables.as_page("Networks side by side", self.cells(), ("network",), [CONVENTION])

    def __str__(self) -> str:
        return "\n".join([*tables.aligned(self.cells(), ("network",)), CONVENTION])


CONVENTION = "Shares are those of the last network. Sees: the input positions that can change one output value."


def compare(networks: Mapping[str, Description]) -> Comparison:
    """Networks side by side.

    Raises:
        OptionError: There are none.

    >>> two = describe("INPUT 64x32x32 -> [CONV3-64 bias=no]*2")
    >>> one = describe("INPUT 64x32x32 -> CONV5-64 bias=no")
    >>> compare({"two 3x3": two, "one 5x5": one}).shares()[0]["parameters"]
    0.72
    """
    if not networks:
        raise OptionError("compare needs at least one network.")
    return Comparison(dict(networks))


def sweep(network: Any, variables: Mapping[str, Sequence[Any]], input_size: Sequence[int] | None = None) -> Comparison:
    """One text for every combination of values of its variables.

    Raises:
        OptionError: There are too many combinations.
        NotationError: The text cannot be read.
        GeometryError: A combination does not fit; the message names the layer.

    >>> found = sweep("INPUT 3x32x32 -> [CONV3-8 -> RELU]*N -> FC 10", {"N": [1, 2]})
    >>> list(found.descriptions)
    ['N=1', 'N=2']
    """
    count = 1
    for values in variables.values():
        count *= len(values)
    if not 1 <= count <= MOST_NETWORKS:
        raise OptionError(
            f"these values give {count:,} networks; at least 1 and at most {MOST_NETWORKS:,} are compared."
        )
    found = {}
    for values in product(*variables.values()):
        chosen = dict(zip(variables, values, strict=True))
        found[" ".join(f"{name}={value}" for name, value in chosen.items())] = describe(network, input_size, **chosen)
    return compare(found)


def _figures(found: Description) -> dict[str, Any]:
    totals, last = found.totals, found.result
    return {
        "layers": len(found.rows) - 1,
        "parameters": totals.parameters,
        "macs": totals.macs,
        "flops": totals.flops,
        "activation_bytes": totals.activation_bytes,
        "inference_bytes": totals.inference_bytes,
        "training_bytes": totals.training_bytes,
        "output_shape": last.output_shape,
        "receptive_field": last.receptive_field,
    }


def _share(one: int | None, other: int | None) -> float | None:
    return None if one is None or not other else one / other


def _with_share(text: str, share: float | None) -> str:
    return text if share is None else f"{text} {_percent(share):>6}"


def _percent(share: float) -> str:
    if share >= 2:
        return f"{share:.1f}x" if share < 10 else f"{share:.0f}x"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _memory(count: int | None) -> str:
    return "unknown" if count is None else bytes_text(count)
