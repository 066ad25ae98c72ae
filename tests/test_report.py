"""The page is judged as a browser and a careful reader would: complete, well formed, nothing from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from striate import report
from striate.metrics import Evaluation

VOID = {"meta", "link", "br", "img", "hr", "input"}
SECTIONS = ["use", "learning", "classes", "confusion", "mistakes", "calibration", "filters", "activations", "layers"]
SECTIONS += ["notation", "settings", "reproduce"]
EVIL = '<script>alert("1")</script> & "co"'


class Page(HTMLParser):
    """What a parser sees: tags that balance, links, words, and the sections with their words."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def attributes(self, *names: str) -> Iterator[str]:
        return (value or "" for _, attrs in self.tags for name, value in attrs.items() if name in names)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def arguments(classes: tuple[str, ...], *, wrong: int, epochs: int) -> dict[str, Any]:
    count = 40
    labels = torch.arange(count) % len(classes)
    said = torch.where(torch.arange(count) < wrong, (labels + 1) % len(classes), labels)
    probabilities = torch.full((count, len(classes)), 0.1 / (len(classes) - 1))
    probabilities[torch.arange(count), said] = 0.9
    row = {"train_loss": 0.5, "loss": 0.4321, "accuracy": 1 - wrong / count, "train_accuracy": None}
    layers = [("conv1", torch.linspace(-1, 1, 4 * 36).view(4, 6, 6)), ("fc1", torch.ones(7))]
    return dict(
        title=f"LeNet-5 on {EVIL}",
        facts={"parameters": "61,706", "training time <s>": "3 min & 15 s"},
        history=[{"epoch": epoch} | row for epoch in range(1, epochs + 1)],
        evaluation=Evaluation(classes, labels, probabilities, 0.4321),
        images=torch.full((count, 1, 6, 6), 7, dtype=torch.uint8),
        table=[
            {"layer": "conv1", "output": "4 × 6 × 6", "parameters": "1,040", "note": "a<b"},
            {"layer": "fc1", "output": "7", "parameters": "unknown", "note": ""},
        ],
        filters=[("conv1", torch.linspace(-1, 1, 36).view(4, 1, 3, 3)), ("conv2", torch.ones(2, 3, 3, 3))],
        columns=(layers, torch.zeros(1, 6, 6, dtype=torch.uint8), [(classes[0], 0.8), (classes[1], 0.2)], classes[1]),
        notation="INPUT 1x6x6 -> CONV 3x3x4\n",
        settings={"epochs": epochs, "optimizer": {"name": "<adamw>", "betas": (0.9, 0.99)}, "augment": None},
        commands=["# your own pictures", "striate predict run/checkpoint.safetensors a.png > b.txt && echo 'done'"],
        reproduce=["striate train lenet5 --seed 0"],
    )


@pytest.fixture(scope="module")
def html() -> str:
    return report.render(**arguments((EVIL, "小熊猫", "coat $x$", "no examples of this"), wrong=3, epochs=4))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_tags_balance(page: Page) -> None:
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_nothing_is_loaded_from_outside(html: str, page: Page) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert all(link.startswith(("#", "data:")) for link in page.attributes("src", "href", "xlink:href", "srcset"))
    assert all(link.startswith("url(#") for link in re.findall(r"url\([^)]*\)", html))


def test_every_reference_has_one_target(page: Page) -> None:
    ids = list(page.attributes("id"))
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.attributes("href") if link.startswith("#")} <= set(ids)


def test_every_section_is_there_in_order_and_in_the_navigation(page: Page) -> None:
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == SECTIONS
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == [f"#{name}" for name in SECTIONS]


def test_every_number_is_there(page: Page) -> None:
    for words in (
        "92.5 %",
        "37 of 40 test pictures were recognised; their mean loss is 0.4321.",
        "expect between 80.1 % and 97.4 % (95 % confidence)",
        "parameters 61,706",
        "training time <s> 3 min & 15 s",
        f"{EVIL} called 小熊猫 1",
        "best epoch 1: 92.5 %",
        "The network says " + EVIL + " (80.0 %); it is 小熊猫.",
        "90.0 % sure and 92.5 % right on average; calibration error 2.5 %",
        "conv1 4 × 6 × 6 1,040 a<b",
        "INPUT 1x6x6 -> CONV 3x3x4",
        "optimizer.name <adamw>",
        "optimizer.betas 0.9, 0.99",
        "striate predict run/checkpoint.safetensors a.png > b.txt && echo 'done'",
        "striate train lenet5 --seed 0",
    ):
        assert words in page.text


def test_names_are_escaped(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#34;co&#34;" in html


def test_every_picture_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    pictures = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert (
        len(pictures) == 2 * 8
    )  # wide and narrow: curves, classes, confusion, mistakes, calibration, two filters, columns
    assert all((attrs["aria-label"] or "").endswith(".") for attrs in pictures)
    assert [tag for tag, _ in page.tags].count("figcaption") == 8


def test_the_layer_table_has_headers_and_numbers_on_the_right(html: str) -> None:
    assert '<th scope="col">layer</th><th scope="col">output</th><th scope="col" class="number">parameters</th>' in html
    assert '<tr><th scope="row">fc1</th><td>7</td><td class="number">unknown</td><td></td></tr>' in html


def test_colors_of_charts_follow_the_page(html: str) -> None:
    charts = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in charts
    assert "var(--blue)" in charts
    assert "#22303c" not in charts
    assert "--ink: #22303c;" in html
    assert "prefers-color-scheme: dark" in html


def test_the_page_depends_on_its_arguments_only_and_may_be_short() -> None:
    short = arguments(("right", "left"), wrong=0, epochs=1) | {"filters": [], "table": [], "reproduce": []}
    html = report.render(**short)
    page = Page(html)
    assert html == report.render(**short)
    assert "No mistakes among 40 examples." in page.text
    assert "Most frequent mistakes None." in page.text
    assert not {"filters", "reproduce"} & {attrs.get("id") for _, attrs in page.tags}
    assert len(html) < 100_000


def test_of_many_convolutions_the_first_are_shown_and_the_page_says_so() -> None:
    many = [(f"conv{i}", torch.ones(1, 1, 1, 1)) for i in range(7)]
    page = Page(report.render(**arguments(("right", "left"), wrong=1, epochs=0) | {"filters": many}))
    assert "Of 7 convolutions, the first 5 are shown." in page.text
    assert "conv4" in page.text
    assert "conv5" not in page.text


def test_a_page_without_history_has_no_curves() -> None:
    page = Page(report.render(**arguments(("right", "left"), wrong=1, epochs=0)))
    assert "learning" not in set(page.attributes("id"))
    assert page.open == []


@pytest.mark.parametrize(
    ("scores", "truth", "sentence"),
    [
        ([("cat", 0.5)], "cat", "The network says cat (50.0 %), which is right."),
        ([("cat", 0.5)], None, "The network says cat (50.0 %)."),
        ([("cat", 1.0)], "dog", "The network says cat (100.0 %); it is dog."),
    ],
)
def test_the_prediction_in_words(scores: list[tuple[str, float]], truth: str | None, sentence: str) -> None:
    assert report._said(scores, truth) == sentence


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (("1", "2,345", "–"), True),
        (("416.5 k", "1.1 G", "unknown"), True),
        (("12 %", "< 0.1 %", ""), True),
        (("5 × 5", "3"), False),
        (("CONV", "3"), False),
        (("", "–"), False),
    ],
)
def test_a_column_is_numeric_if_every_filled_cell_is_a_number(cells: tuple[str, ...], numeric: bool) -> None:
    rows: list[Mapping[str, str]] = [{"x": cell} for cell in cells]
    assert report._numeric(rows) == ({"x"} if numeric else set())
