"""The page is judged as a browser and a careful reader would: complete, well formed, nothing from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from striate import report
from striate.metrics import Evaluation, MaskEvaluation
from striate.overlays import Overlap
from striate.report import Wording

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
        followed=report.Followed(
            layers, torch.zeros(1, 6, 6, dtype=torch.uint8), [(classes[0], 0.8), (classes[1], 0.2)], classes[1]
        ),
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
    assert "It is that of the first, unfinished epoch." in page.text
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
    assert report._said(report.Followed([], torch.zeros(1, 2, 2), scores, truth)) == sentence


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


# ----------------------------------------------------------------------------------------------- other kinds of data


def of_masks(classes: tuple[str, ...] = ("ground", "disc"), epochs: int = 2) -> dict[str, Any]:
    """Four volumes of which two voxels are wrong in the first, and one in the third."""
    truth = torch.zeros(4, 2, 4, 5, dtype=torch.uint8)
    truth[:, :, 1:3, 1:4] = 1
    truth[:, 0, 0, 0] = 255
    said = truth.clone().clamp(max=1)
    said[0, 0, 1, 1] = said[0, 0, 2, 1] = said[2, 1, 2, 2] = 0
    overlaps = [Overlap.of(n, torch.rand(1, 2, 4, 5), truth[n], said[n], classes) for n in (0, 2)]
    row = {"train_loss": 0.5, "loss": 0.4, "accuracy": 0.97, "iou": 0.8}
    return arguments(("a", "b"), wrong=0, epochs=0) | {
        "history": [row | {"epoch": e, "iou": 0.5 + 0.1 * e} for e in range(1, epochs + 1)],
        "evaluation": MaskEvaluation.of(classes).add(said, truth, 0.0625),
        "overlaps": overlaps,
        "looked_at": 3,
        "followed": report.Followed([("conv1", torch.rand(2, 2, 4, 5))], torch.rand(1, 2, 4, 5), overlap=overlaps[0]),
        "wording": Wording("volume", "validation"),
    }


@pytest.fixture(scope="module")
def masks_page() -> Page:
    return Page(report.render(**of_masks()))


def test_the_page_of_masks_tells_their_overlap_and_no_certainty(masks_page: Page) -> None:
    wanted = [name for name in SECTIONS if name not in ("mistakes", "calibration")]
    wanted.insert(wanted.index("confusion") + 1, "masks")
    assert [attrs["id"] for tag, attrs in masks_page.tags if tag == "section"] == wanted
    assert [attrs["href"] for tag, attrs in masks_page.tags if tag == "a"] == [f"#{name}" for name in wanted]
    assert masks_page.open == []
    # Of 156 labelled voxels 3 are wrong; of the disc's 48, 45 are found and none is invented.
    disc, ground, dice = 45 / 48, 108 / 111, (90 / 93 + 216 / 219) / 2
    over = "Mean overlap (IoU) of true and predicted regions, over 2 classes on 4 test volumes."
    called = f"{100 * 153 / 156:.1f} % of their voxels are called what they are"
    for words in (
        f"{100 * (disc + ground) / 2:.1f} % {over}",
        f"{called}, mean Dice coefficient {100 * dice:.1f} %, mean loss 0.0625.",
        "blue on the validation volumes, grey on the volumes it learned from",
        "Most frequent mistakes, in voxels disc called ground 3",
        "Of 3 test volumes at even distances among all 4, those whose masks overlap least, worst first: what the",
        "One volume, layer by layer",
        "The last column leads to the mask, with the true one below it.",
    ):
        assert words in masks_page.text


def test_the_pictures_of_masks_have_words_too(masks_page: Page) -> None:
    alts = [attrs["aria-label"] for _, attrs in masks_page.tags if attrs.get("role") == "img"][::2]
    first, third = 100 * (10 / 12 + 27 / 29) / 2, 100 * (11 / 12 + 27 / 28) / 2
    losses, ious = "Validation loss went from 0.400 to 0.400", "validation mean IoU from 60.0 % to 70.0 %"
    bars = f"ground {100 * 108 / 111:.1f} % and {100 * 216 / 219:.1f} %, disc 93.8 % and {100 * 90 / 93:.1f} %"
    curves = f"over 2 epochs. {losses}, {ious}; the best was 70.0 % after epoch 2."
    assert alts[:4] == [
        f"Line charts of loss, accuracy and mean IoU {curves}",
        f"Bar chart of the IoU and Dice coefficient of each class: {bars}.",
        "Confusion matrix of 2 classes. Most frequent mistakes: disc called ground 3 times.",
        f"2 test volumes with true and predicted masks, by mean IoU: number 0 {first:.1f} %, number 2 {third:.1f} %.",
    ]
    assert alts[-1] == (
        f"Activations of one volume after conv1. The network calls {100 * 37 / 39:.1f} % of its voxels what they are; "
        f"their mean IoU is {first:.1f} %."
    )


def test_a_page_of_signals_calls_them_so_everywhere() -> None:
    signals = torch.randn(40, 1, 30, generator=torch.Generator().manual_seed(0))
    given = arguments(("low", "high"), wrong=3, epochs=1) | {
        "images": {number: signals[number] for number in range(3)},
        "followed": report.Followed([("conv1", signals[:4, 0])], signals[0], [("low", 0.9), ("high", 0.1)], "low"),
        "wording": Wording("signal"),
    }
    html = report.render(**given)
    page = Page(html)
    words = page.text + " ".join(page.attributes("aria-label"))
    assert "picture" not in words.replace("your own pictures", "").replace("shown as a colour picture", "")
    assert "37 of 40 test signals were recognised" in words
    assert "each around its line of zero" in words
    assert "Signals of the 3 most confident mistakes: low called high, high called low, low called high." in words
    assert "over 1 epoch. Test loss" in words


def test_hundreds_of_classes_leave_the_page_small() -> None:
    names = tuple(f"class number {i}" for i in range(400))
    html = report.render(**arguments(names, wrong=20, epochs=2))
    alts = list(Page(html).attributes("aria-label"))
    assert any(alt.endswith(", class number 39 100.0 % and 360 more.") for alt in alts)
    assert max(map(len, alts)) < 2000
    assert len(html) < 400_000


def test_figures_that_are_not_numbers_are_unknown() -> None:
    nan = float("nan")
    row: dict[str, float | None] = {"epoch": 1, "train_loss": 0.5, "loss": nan, "accuracy": 0.5, "iou": nan}
    assert report._curves_alt([row], Wording("volume", "validation")) == (
        "Line charts of loss, accuracy and mean IoU over 1 epoch. Validation loss went from unknown to unknown, "
        "validation mean IoU from unknown to unknown; the best was unknown after epoch 1."
    )
