"""Figures are judged by what is drawn in them: texts, boxes, curves and pixels; a few are rendered."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from PIL import Image

from striate import feature_maps, pictures, rendering, sheets
from striate.metrics import Evaluation, MaskEvaluation
from striate.overlays import Overlap

CHINESE = ("猫", "小熊猫", "a $x$ & <b>", "空")


def evaluation(classes: int | tuple[str, ...] = 3, count: int = 60, wrong: int = 7) -> Evaluation:
    """A classifier that takes the first ``wrong`` examples for the next class, more surely the earlier they come."""
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else classes
    labels = torch.arange(count) % len(names)
    said = torch.where(torch.arange(count) < wrong, (labels + 1) % len(names), labels)
    sure = torch.linspace(0.97, 0.6, count)
    probabilities = ((1 - sure) / (len(names) - 1))[:, None].repeat(1, len(names))
    probabilities[torch.arange(count), said] = sure
    return Evaluation(names, labels, probabilities, 0.25)


def history(epochs: int) -> list[dict[str, float | None]]:
    rows = range(1, epochs + 1)
    return [
        {"epoch": e, "train_loss": 2 / e, "loss": 2.2 / e, "accuracy": 0.9 - 0.5 / e, "train_accuracy": 0.9 - 0.4 / e}
        for e in rows
    ]


def layers() -> list[tuple[str, torch.Tensor]]:
    volume = torch.linspace(-1, 1, 16 * 6 * 6).view(16, 6, 6)
    return [
        ("conv1", volume),
        ("relu1", volume.relu()),
        ("fc1", torch.linspace(-1, 1, 300)),
        ("softmax", torch.ones(3)),
    ]


SCORES = [("cat", 0.7), ("dog", 0.2), ("cow", 0.1)]
PICTURE = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(3, 8, 8)

FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: pictures.curves(history(5)),
    "accuracy_per_class": lambda: pictures.accuracy_per_class(evaluation(CHINESE)),
    "confusion": lambda: pictures.confusion(evaluation(CHINESE)),
    "mistakes": lambda: pictures.mistakes(PICTURE.repeat(60, 1, 1, 1), evaluation(CHINESE), 4),
    "calibration": lambda: pictures.calibration(evaluation(CHINESE)),
    "filters": lambda: feature_maps.filters(torch.linspace(-1, 1, 4 * 2 * 9).view(4, 2, 3, 3), "conv2"),
    "columns": lambda: feature_maps.columns(layers(), PICTURE, SCORES, truth="dog"),
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def boxes(figure: Figure) -> list[tuple[str, float]]:
    """Colour and opacity of every rectangle."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [(to_hex(patch.get_facecolor()), float(patch.get_alpha() or 0.0)) for patch in patches]


@pytest.fixture(scope="module")
def svgs() -> dict[str, str]:
    return {name: rendering.to_svg(draw()) for name, draw in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_the_same_every_time(name: str, svgs: dict[str, str]) -> None:
    assert rendering.to_svg(FIGURES[name]()) == svgs[name]


@pytest.mark.parametrize("name", FIGURES)
def test_an_svg_is_well_formed_and_loads_nothing(name: str, svgs: dict[str, str]) -> None:
    root = ElementTree.fromstring(svgs[name])
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert svgs[name].replace("http://www.w3.org/2000/svg", "").count("http") == 0
    assert "<style" not in svgs[name]
    assert "<metadata" not in svgs[name]


def test_ids_never_collide_in_a_page_and_every_reference_has_its_target(svgs: dict[str, str]) -> None:
    ids = {name: re.findall(r'\bid="([^"]+)"', svg) for name, svg in svgs.items()}
    everything = [one for found in ids.values() for one in found]
    assert len(everything) == len(set(everything)) > 0
    for name, svg in svgs.items():
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) == set(ids[name])


def test_colors_are_replaced_in_styles_and_nowhere_else() -> None:
    names = (sheets.BLUE, "id=&quot;", "--> ]]>")
    svg = rendering.to_svg(pictures.confusion(evaluation(names)), colors={sheets.BLUE: "var(--blue)"})
    text = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert all(name in text for name in names)
    assert "fill: var(--blue)" in svg
    assert svg.count(sheets.BLUE) == 2  # the class name, at its row and at its column


def test_letters_without_a_font_warn_nobody_and_stay_letters_in_an_svg(svgs: dict[str, str]) -> None:
    drawn = pictures.confusion(evaluation(("\u1f9ff \U00013080", "\x00bad\nline")))
    assert rendering.to_png(drawn, dpi=50)
    assert "\U00013080" in rendering.to_svg(drawn)
    assert "\N{REPLACEMENT CHARACTER}bad line" in rendering.to_svg(drawn)
    assert "小熊猫" in svgs["confusion"]


def test_drawing_changes_no_global_setting() -> None:
    before = dict(matplotlib.rcParams)
    rendering.to_svg(FIGURES["filters"]())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("width", [3.75, 10.0])
@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_curves_mark_the_best_epoch_and_name_both_ends(epochs: int, width: float) -> None:
    rows = history(epochs)
    figure = pictures.curves(rows, width=width)
    written = texts(figure)
    assert f"best epoch {epochs}: {90 - 50 / epochs:.1f} %" in written
    assert {f"test {2.2 / epochs:.3f}", f"train {2 / epochs:.3f}"} <= set(written)
    for axes in figure.axes:
        assert len(axes.lines) == 4  # train, test, the dotted line and its point
        assert axes.get_xlim()[0] < axes.get_xlim()[1]
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_curves_show_what_is_missing_or_not_a_number_as_a_gap() -> None:
    rows = history(3)
    rows[1] |= {"train_accuracy": None, "loss": float("nan"), "accuracy": 0.95}
    rows[2] |= {"loss": float("inf")}
    loss, accuracy = pictures.curves(rows).axes
    np.testing.assert_allclose(np.asarray(loss.lines[1].get_ydata(), dtype=float), [2.2, np.nan, np.nan])
    np.testing.assert_allclose(np.asarray(accuracy.lines[0].get_ydata(), dtype=float), [50, np.nan, 90 - 40 / 3])
    assert "best epoch 2: 95.0 %" in [text.get_text() for text in accuracy.texts]


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    rows = [row | {"accuracy": 0.8} for row in history(4)]
    assert "best epoch 1: 80.0 %" in texts(pictures.curves(rows))


def test_bars_are_sorted_and_a_class_without_examples_says_so() -> None:
    e = Evaluation(("bad", "good", "none"), torch.tensor([0, 0, 1]), torch.eye(3)[[0, 1, 1]], 0.1)
    written = texts(pictures.accuracy_per_class(e))
    assert [text for text in written if text in e.classes] == ["good", "bad", "none"]
    assert {"100.0 %", "50.0 %", "1 of 2", "no examples", "all classes 66.7 %"} <= set(written)


def test_of_very_many_classes_the_best_and_the_worst_are_listed() -> None:
    written = texts(pictures.accuracy_per_class(evaluation(100, 300)))
    assert sum(text.startswith("class ") for text in written) == 40
    assert "… 60 classes in between …" in written


@pytest.mark.parametrize("classes", [2, 20])
def test_confusion_tells_right_from_wrong_by_color_and_writes_every_count(classes: int) -> None:
    e = evaluation(classes, 200, wrong=30)
    figure = pictures.confusion(e)
    counts = e.confusion
    numbers = [text for text in texts(figure) if text.isdigit()]
    assert sorted(map(int, numbers)) == sorted(counts[counts > 0].tolist())
    right, wrong = ([alpha for color, alpha in boxes(figure) if color == c] for c in (sheets.BLUE, sheets.ORANGE))
    shares = counts / counts.sum(1, keepdim=True)
    off_diagonal = shares.clone().fill_diagonal_(0)
    np.testing.assert_allclose(right, shares.diagonal().sqrt())
    np.testing.assert_allclose(wrong, off_diagonal[off_diagonal > 0].sqrt())


def test_confusion_of_many_classes_is_one_picture_without_numbers() -> None:
    e = evaluation(40, 400, wrong=50)
    figure = pictures.confusion(e)
    (cells,) = tiles(figure)
    assert not [text for text in texts(figure) if text.isdigit()]
    assert cells.shape == (40, 40, 4)
    assert ((cells[..., 3] > 0) == (e.confusion > 0).numpy()).all()
    assert [bytes(cells[0, column, :3]).hex() for column in (0, 1)] == [sheets.BLUE[1:], sheets.ORANGE[1:]]


@pytest.mark.parametrize("classes", [2, 12, 45])
def test_confusion_keeps_its_names_inside_the_figure(classes: int) -> None:
    figure = pictures.confusion(evaluation(tuple(f"a long class name {i}" for i in range(classes)), 200), width=3.75)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.y0 >= -1, text.get_text()
        assert box.x1 <= width + 1, text.get_text()
        assert box.y1 <= height + 1, text.get_text()


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_show_the_pictures_of_the_most_confident_ones(channels: int) -> None:
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).repeat(1, channels, 4, 5)
    figure = pictures.mistakes(images, evaluation(), 3)
    assert texts(figure)[:2] == ["said class 1 97 %", "is class 0"]
    assert [tile.shape for tile in tiles(figure)] == [(4, 5, 3)] * 3
    assert [int(tile[0, 0, 0]) for tile in tiles(figure)] == [0, 1, 2]


def test_without_mistakes_the_picture_says_so() -> None:
    figure = pictures.mistakes(torch.zeros(60, 1, 2, 2, dtype=torch.uint8), evaluation(wrong=0))
    assert texts(figure) == ["No mistakes among 60 examples."]


def test_a_large_photograph_is_reduced_and_smoothed_and_a_small_one_keeps_its_pixels() -> None:
    large, small = (torch.zeros(60, 3, size, size, dtype=torch.uint8) for size in (1000, 8))
    drawn = [pictures.mistakes(images, evaluation(), 1) for images in (large, small)]
    assert [max(tiles(figure)[0].shape) < 200 for figure in drawn] == [True, True]
    assert ["pixelated" in rendering.to_svg(figure) for figure in drawn] == [False, True]


@pytest.mark.parametrize("width", [3.75, 10.0])
def test_calibration_shows_accuracy_in_blue_and_certainty_without_success_in_orange(width: float) -> None:
    probabilities = torch.tensor([[0.7, 0.3]] * 4 + [[0.9, 0.1]] * 2, dtype=torch.float64)
    e = Evaluation(("a", "b"), torch.tensor([0, 1, 1, 1, 0, 0]), probabilities, 0.5)
    figure = pictures.calibration(e, width=width)
    tall = pictures._TALL
    heights: dict[str, list[float]] = {}
    for patch in figure.axes[0].patches:
        heights.setdefault(to_hex(patch.get_facecolor()), []).append(patch.get_height() / tall)  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights[sheets.BLUE], [1 / 4, 1.0])
    np.testing.assert_allclose(heights[sheets.ORANGE], [0.7 - 1 / 4])  # of the other bin it was less sure than right
    np.testing.assert_allclose(heights[sheets.MUTED], [0.45 / tall, 0.45 / tall / 2])
    # (4 * |1/4 - 0.7| + 2 * |1 - 0.9|) / 6 = 2 / 6
    assert "76.7 % sure and 50.0 % right on average; calibration error 33.3 %" in texts(figure)
    figure.draw_without_rendering()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.x1 <= figure.bbox.width + 1, text.get_text()


def test_calibration_of_nothing_says_so() -> None:
    figure = pictures.calibration(Evaluation(("a", "b"), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), 0.0))
    assert "no examples" in texts(figure)
    assert boxes(figure) == []


def test_signed_filters_have_the_color_of_each_weight() -> None:
    weight = torch.tensor([[-2.0, 0.0], [1.0, 2.0]]).view(1, 1, 2, 2)
    figure = feature_maps.filters(weight, "edge")
    expected = [[sheets.SIGNED(0), sheets.SIGNED(255)], [sheets.SIGNED(383), sheets.SIGNED(510)]]
    np.testing.assert_allclose(tiles(figure)[0] / 255, np.array(expected)[..., :3], atol=1 / 255)
    assert texts(figure) == ["edge", "the filter of 2 × 2"]
    png = np.asarray(Image.open(io.BytesIO(rendering.to_png(figure, dpi=100))).convert("RGB"))
    for row, column in np.ndindex(2, 2):  # the tile begins 0.6 inches from the top and is one inch wide
        np.testing.assert_array_equal(png[85 + 50 * row, 25 + 50 * column], tiles(figure)[0][row, column])


def test_filters_over_colors_are_color_pictures_with_grey_for_zero() -> None:
    weight = torch.zeros(2, 3, 1, 2)
    weight[1, :, 0, 1] = torch.tensor([4.0, 0.0, -4.0])
    nothing, filled = tiles(feature_maps.filters(weight, "conv1"))
    assert nothing.tolist() == [[[128] * 3] * 2]
    assert filled.tolist() == [[[128] * 3, [255, 128, 0]]]


@pytest.mark.parametrize(
    ("shape", "extract", "shown"),
    [
        ((4, 2, 3, 3), "all 4 filters of 3 × 3, all 2 input channels", 8),
        ((64, 40, 3, 3), "first 21 of 64 filters of 3 × 3, first 8 of 40 input channels", 168),
        ((200, 1, 5, 5), "first 96 of 200 filters of 5 × 5", 96),
        ((6, 2, 3, 3, 3), "all 6 filters of 3 × 3 × 3, all 2 input channels, the middle slice of each", 12),
    ],
)
def test_filters_say_how_much_of_them_is_shown(shape: tuple[int, ...], extract: str, shown: int) -> None:
    figure = feature_maps.filters(torch.ones(shape), "conv2")
    assert extract in texts(figure)
    assert len(tiles(figure)) == shown


def test_filters_over_one_axis_are_curves_around_their_zero_line() -> None:
    figure = feature_maps.filters(torch.tensor([0.0, 1.0, -1.0, 0.5]).view(1, 1, 4), "conv1")
    zero, curve = figure.axes[0].lines
    heights = np.asarray(zero.get_ydata(), dtype=float)[0] - np.asarray(curve.get_ydata(), dtype=float)
    np.testing.assert_allclose(heights / heights.max(), [0.0, 1.0, -1.0, 0.5], atol=1e-9)
    assert "the filter of length 4" in texts(figure)


def test_columns_show_evenly_chosen_slices_and_count_the_rest() -> None:
    volume = torch.arange(19.0).view(19, 1, 1).expand(19, 5, 5)  # ten of 19 at even distances: every second one
    figure = feature_maps.columns([("conv", volume), ("fc", torch.ones(4))], PICTURE, SCORES)
    shown = tiles(figure)
    assert len(shown) == 10 + 1 + 1  # slices, the strip of four values, the picture
    reds = [int(tile[0, 0, 0]) for tile in shown[:10]]
    expected = [int(255 * sheets.SIGNED(0.5 + value / (2 * 18))[0] + 0.5) for value in range(0, 19, 2)]
    np.testing.assert_allclose(reds, expected, atol=3)
    assert {"+ 9 more", "all 4", "conv", "19×5×5", "fc", "picture", "3×8×8"} <= set(texts(figure))


@pytest.mark.parametrize(("truth", "sentence"), [("dog", "dog · true"), ("ant", "truth: ant"), (None, "top scores")])
def test_columns_end_in_the_scores_with_the_true_class_marked(truth: str | None, sentence: str) -> None:
    written = texts(feature_maps.columns(layers(), PICTURE, SCORES, truth=truth))
    assert sentence in written
    assert {"70.0 %", "20.0 %", "10.0 %"} <= set(written)


@pytest.mark.parametrize("width", [3.75, 10.0])
@pytest.mark.parametrize("count", [1, 12, 38])
def test_columns_of_any_number_of_layers_stay_inside_the_figure(count: int, width: float) -> None:
    named = [(f"conv{i // 3}_{i}", torch.ones(2, 3, 3)) for i in range(count)]
    figure = feature_maps.columns(named, PICTURE, SCORES, width=width)
    names = [text for text in figure.axes[0].texts if text.get_text().startswith("conv")]
    rows = sorted({float(text.get_position()[1]) for text in names})
    assert len(names) == count
    assert len(rows) == (1 if count == 1 else {3.75: {12: 3, 38: 7}, 10.0: {12: 1, 38: 3}}[width][count])
    corners = [image.get_extent() for image in figure.axes[0].images]
    assert min(corner[0] for corner in corners) >= 0
    assert max(corner[1] for corner in corners) <= width


def test_columns_survive_dead_layers_and_numbers_that_are_none() -> None:
    odd = [("dead", torch.zeros(2, 3, 3)), ("nan", torch.full((2, 3, 3), float("nan"))), ("point", torch.ones(5, 1, 1))]
    figure = feature_maps.columns([*odd, ("line", torch.ones(2, 30))], PICTURE, SCORES)
    middle = (255 * np.array(sheets.SIGNED(255))[:3]).astype(np.uint8)
    np.testing.assert_allclose(tiles(figure)[0], np.tile(middle, (3, 3, 1)), atol=1)
    assert "5×1×1" in texts(figure)


# ------------------------------------------------------------------------------------------- masks, signals and volumes


def mask_history(epochs: int) -> list[dict[str, float | None]]:
    return [
        row | {"iou": 0.8 - 0.1 * abs(i - 2), "learning_rate": 1e-3 / (i + 1)} for i, row in enumerate(history(epochs))
    ]


@pytest.mark.parametrize("width", [3.75, 10.0])
def test_curves_of_masks_have_the_iou_which_says_which_epoch_is_best(width: float) -> None:
    rows = [{name: value for name, value in row.items() if name != "learning_rate"} for row in mask_history(5)]
    figure = pictures.curves(rows, judged="validation", width=width)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["loss", "accuracy", "mean IoU"]
    assert "best epoch 3: 80.0 %" in [text.get_text() for text in figure.axes[2].texts]
    assert f"best epoch 3: {90 - 50 / 3:.1f} %" in [text.get_text() for text in figure.axes[1].texts]
    np.testing.assert_allclose(np.asarray(figure.axes[2].lines[1].get_ydata(), dtype=float), [60, 70, 80, 70, 60])
    assert not [text for text in texts(figure) if "test" in text]
    assert [text for text in texts(figure) if text.startswith("validation")]
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert -1 <= box.x0 < box.x1 <= figure.bbox.width + 1, text.get_text()


def test_the_learning_rate_is_a_curve_of_its_own_without_a_best_epoch() -> None:
    figure = pictures.curves(mask_history(4))
    axes = figure.axes[3]
    assert [text.get_text() for text in axes.texts] == ["learning rate", "epoch", "0.00025"]
    np.testing.assert_allclose(np.asarray(axes.lines[1].get_ydata(), dtype=float), [1e-3, 5e-4, 1e-3 / 3, 2.5e-4])


def test_confusion_of_masks_writes_the_share_of_each_row() -> None:
    truth = torch.tensor([[[0, 0, 0, 0], [1, 1, 2, 2]]], dtype=torch.uint8)
    said = torch.tensor([[[0, 0, 0, 1], [1, 1, 2, 0]]], dtype=torch.uint8)
    found = MaskEvaluation.of(("a", "b", "c")).add(said, truth)
    numbers = [text for text in texts(pictures.confusion(found)) if "%" in text]
    assert numbers == ["75 %", "25 %", "100 %", "50 %", "50 %"]


def test_mistakes_of_signals_are_curves_and_only_those_shown_are_needed() -> None:
    signals = {number: torch.linspace(-1, 1, 50).mul(number + 1).sin()[None] for number in range(3)}
    figure = pictures.mistakes(signals, evaluation(), 3)
    curves = [line for line in figure.axes[0].lines if len(np.asarray(line.get_xdata())) == 50]
    assert len(curves) == 3
    for number, line in enumerate(curves):
        heights = -np.asarray(line.get_ydata(), dtype=float)
        np.testing.assert_allclose(np.corrcoef(heights, signals[number][0])[0, 1], 1.0, atol=1e-6)
    assert texts(figure)[-1] == "Each curve on its own scale."
    with pytest.raises(KeyError):
        pictures.mistakes(signals, evaluation(), 4)


def test_mistakes_of_volumes_show_the_middle_slice_on_a_scale_that_is_told() -> None:
    volumes = torch.zeros(60, 1, 5, 4, 4)
    volumes[:, :, 2] = torch.linspace(-3, 6, 60).view(60, 1, 1, 1)
    figure = pictures.mistakes(volumes, evaluation(), 2)
    low, high = volumes[0].min().item(), 0.0
    dark, bright = tiles(figure)
    assert (int(dark[0, 0, 0]), texts(figure)[-1]) == (0, "The middle slice, 3 of 5. Black is −3, white 0.")
    second = volumes[1, 0, 2, 0, 0].item()
    assert int(bright[0, 0, 0]) == round(255 * (second - low) / (high - low))


def test_columns_of_signals_are_areas_around_zero() -> None:
    wave = torch.sin(torch.arange(40) / 3)
    figure = feature_maps.columns([("conv1", torch.stack([wave, -wave]))], wave[None], SCORES, noun="signal")
    polygons = [patch for patch in figure.axes[0].patches if isinstance(patch, Polygon)]
    areas = [(to_hex(patch.get_facecolor()), patch.get_xy()) for patch in polygons]
    assert [color for color, _ in areas] == [sheets.ORANGE, sheets.BLUE] * 2
    above, below = (areas[0][1][:, 1], areas[3][1][:, 1])
    np.testing.assert_allclose(
        above[0] - above.min(), below.max() - below[0], rtol=1e-6
    )  # the wave and its mirror image
    assert {"signal", "1×40", "2×40", "Each curve on its own scale."} <= set(texts(figure))
    assert tiles(figure) == []


def test_columns_of_volumes_show_the_middle_slices_and_say_so() -> None:
    volume = torch.zeros(2, 6, 4, 4)
    volume[:, 3] = 1.0
    figure = feature_maps.columns([("conv1", volume)], torch.rand(1, 6, 4, 4), SCORES, noun="volume")
    expected = (255 * np.array(sheets.SIGNED(510))[:3]).astype(np.uint8)
    np.testing.assert_allclose(tiles(figure)[0], np.tile(expected, (4, 4, 1)), atol=1)
    assert "The middle slice, 4 of 6. Black is 0, white 1. Of the layers, the middle slices, too." in " ".join(
        texts(figure)
    )


@pytest.mark.parametrize("width", [3.75, 10.0])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (4, 8, 8), (90,)])
def test_columns_of_masks_end_in_both_masks_inside_the_figure(shape: tuple[int, ...], width: float) -> None:
    truth = torch.ones(shape, dtype=torch.uint8)
    overlap = Overlap.of(0, torch.rand(1, *shape), truth, torch.zeros_like(truth), ("a", "b"))
    figure = feature_maps.columns([("conv1", torch.rand(2, *shape))], overlap.inputs, [], overlap=overlap, width=width)
    assert {"network", "truth"} <= set(texts(figure))
    assert "top scores" not in texts(figure)
    assert figure.get_figwidth() <= width
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        assert 0 <= left < right <= figure.get_figwidth() + 1e-6
        assert 0 <= top < bottom <= figure.get_figheight() + 1e-6


def test_slices_of_wide_pictures_lie_close() -> None:
    figures = [feature_maps.columns([("conv1", torch.rand(8, size, 16))], PICTURE, SCORES) for size in (16, 4)]
    places = [sorted({image.get_extent()[3] for image in figure.axes[0].images[:8]}) for figure in figures]
    steps = [np.diff(tops) for tops in places]
    np.testing.assert_allclose(steps[0], 0.66 + 0.05)
    np.testing.assert_allclose(steps[1], 0.66 / 4 + 0.05)
