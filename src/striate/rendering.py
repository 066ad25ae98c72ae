"""Figures as files: PNG pictures, and SVG elements that can stand inside a page."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

SHARP = 64  # pictures up to so many pixels wide are shown as pixels; larger ones look better smoothed
_REFERENCE = re.compile(r"(^#|url\(#)([^)]+)")


def to_png(figure: Figure, dpi: float = 150, margin: float = 0.0) -> bytes:
    """The figure as a PNG file of ``(inches + 2 * margin) * dpi`` pixels, the same bytes for the same figure."""
    stream = io.BytesIO()
    frame = Bbox.from_bounds(0, 0, *figure.get_size_inches()).padded(margin)
    with _quiet():
        figure.savefig(stream, format="png", dpi=dpi, bbox_inches=frame, metadata={"Software": None})
    return stream.getvalue()


def to_svg(figure: Figure, *, colors: Mapping[str, str] | None = None) -> str:
    """The figure as one ``<svg>`` element with a transparent background, ready to stand inside a page.

    Text stays text. Only ids that something refers to are kept, and they begin with a digest of the whole figure, so
    that several figures can share a page. The same figure gives the same text.

    Args:
        figure: The figure.
        colors: Replacements, for example ``{"#22303c": "var(--ink)"}``.
    """
    stream = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "striate", "svg.image_inline": True}
    with matplotlib.rc_context(settings), _quiet():
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return _embeddable(ElementTree.fromstring(text), hashlib.sha256(text.encode()).hexdigest()[:8], colors or {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Letters that no installed font has become boxes in a PNG and stay letters in an SVG: nothing to warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def _embeddable(svg: ElementTree.Element, prefix: str, colors: Mapping[str, str]) -> str:
    """Without namespaces, metadata, rules for the whole page, and ids that could be taken."""
    used = {found[2] for node in svg.iter() for value in node.attrib.values() for found in _REFERENCE.finditer(value)}
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        for child in [child for child in element if child.tag.endswith(("}metadata", "}style"))]:
            element.remove(child)
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            smooth = element.tag == "image" and name == "style" and float(attributes["width"]) > SHARP
            if (name != "id" or value in used) and not smooth:
                element.set(name, _attribute(name, value, prefix, colors))
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("style", "stroke-linejoin:round;stroke-linecap:butt")
    return ElementTree.tostring(svg, encoding="unicode")


def _attribute(name: str, value: str, prefix: str, colors: Mapping[str, str]) -> str:
    """One attribute with its references renamed and its colours replaced."""
    if name == "id":
        return f"{prefix}{value}"
    if value.startswith("data:"):
        return "".join(value.split())
    for old, new in colors.items() if name == "style" else ():
        value = value.replace(old, new)
    return _REFERENCE.sub(rf"\g<1>{prefix}\g<2>", value)
