"""Figures as files: sizes, the same bytes each time, and ids that cannot collide."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure
from PIL import Image

from striate import rendering


def drawing(height: float = 1.0) -> Figure:
    """A line that is clipped to its axes, so that an SVG needs an id and a reference to it."""
    figure = Figure(figsize=(2.0, 1.5))
    figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot([0, 1], [0, height], color="#1f6fb2")
    return figure


def test_a_png_has_the_size_that_was_asked_for_and_the_same_bytes_each_time() -> None:
    files = [rendering.to_png(drawing(), dpi=80) for _ in range(2)]
    assert files[0] == files[1]
    assert Image.open(io.BytesIO(files[0])).size == (160, 120)
    assert Image.open(io.BytesIO(rendering.to_png(drawing(), dpi=80, margin=0.25))).size == (200, 160)


def test_an_svg_is_one_element_with_the_same_text_each_time() -> None:
    text = rendering.to_svg(drawing())
    assert text == rendering.to_svg(drawing())
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "<style" not in text
    assert "<metadata" not in text


def test_ids_of_two_figures_differ_and_every_reference_finds_its_id() -> None:
    found = [set(re.findall(r' id="([^"]+)"', rendering.to_svg(drawing(height)))) for height in (1.0, 2.0)]
    assert found[0]
    assert not found[0] & found[1]
    text = rendering.to_svg(drawing())
    references = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert references == found[0]


def test_colours_are_replaced() -> None:
    text = rendering.to_svg(drawing(), colors={"#1f6fb2": "var(--blue)"})
    assert "var(--blue)" in text
    assert "#1f6fb2" not in text
