"""Masks: every colour and figure on the sheet, computed again from the masks alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from striate import overlays, sheets
from striate.metrics import MaskEvaluation
from striate.overlays import LEFT_OUT, WRONG, Overlap
from striate.splits import IGNORED

CLASSES = ("sky", "tree", "house")


def example(shape: tuple[int, ...] = (6, 8), seed: int = 0, channels: int = 1) -> Overlap:
    g = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, shape, generator=g, dtype=torch.uint8)
    said = torch.where(torch.rand(shape, generator=g) < 0.7, truth, torch.randint(0, 3, shape, generator=g).byte())
    truth.view(-1)[:3] = IGNORED
    inputs = torch.randint(0, 255, (channels, *shape), generator=g, dtype=torch.uint8)
    return Overlap.of(seed, inputs, truth, said, CLASSES)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def rgb(color: str) -> list[int]:
    return [round(255 * part) for part in to_rgb(color)]


def shown(one: Overlap, name: str) -> np.ndarray:
    """A panel with one pixel for each of the mask's."""
    return overlays.panel(one, name, max(one.truth.shape) / 90 + 1e-6, (0.0, 255.0))


def test_exactly_the_wrong_pixels_are_orange_and_the_ignored_ones_grey() -> None:
    one = example()
    pixels = shown(one, "wrong")
    wrong = ((one.said != one.truth) & (one.truth != IGNORED)).numpy()
    assert 0 < wrong.sum() < wrong.size
    np.testing.assert_array_equal((pixels == rgb(WRONG)).all(2), wrong)
    np.testing.assert_array_equal((pixels == rgb(LEFT_OUT)).all(2), (one.truth == IGNORED).numpy())
    assert (one.wrong.numpy() == wrong).all()


def test_regions_have_the_color_of_their_class_and_an_outline_and_class_0_has_none() -> None:
    truth = torch.zeros(9, 9, dtype=torch.uint8)
    truth[1:8, 1:8] = 2
    one = Overlap.of(0, torch.full((1, 9, 9), 100, dtype=torch.uint8), truth, truth, CLASSES)
    pixels, color = shown(one, "truth"), np.array(rgb(overlays.color_of(2) or ""))
    outline = np.zeros((9, 9), bool)
    outline[1:8, 1:8] = True
    outline[2:7, 2:7] = False
    assert (pixels[outline] == color).all()
    np.testing.assert_allclose(pixels[2:7, 2:7], np.tile((0.5 * 100 + 0.5 * color).round(), (5, 5, 1)), atol=1)
    assert (pixels[truth.numpy() == 0] == 100).all()
    np.testing.assert_array_equal(pixels, shown(one, "network"))


def test_no_two_of_the_first_classes_look_alike_and_none_like_a_mistake() -> None:
    colors = [rgb(str(overlays.color_of(number))) for number in range(1, 9)] + [rgb(WRONG), rgb(LEFT_OUT)]
    far = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(far) > 40
    taken = set(sheets.THEME.values())  # which a dark page replaces in its vectors, and not in its pictures
    assert not {overlays.color_of(number) for number in range(256)} & taken


@pytest.mark.parametrize("width", [3.75, 10.4])
@pytest.mark.parametrize("shape", [(6, 8), (5, 6, 8), (300,)])
def test_a_sheet_names_every_color_and_tells_every_figure(shape: tuple[int, ...], width: float) -> None:
    worst = [example(shape, seed) for seed in (3, 1, 2)]
    figure = overlays.masks(worst, CLASSES, noun="thing", width=width)
    said = texts(figure)
    assert {*CLASSES, "not labelled", "wrong"} <= set(said)
    unit = {1: "samples", 2: "pixels", 3: "voxels"}[len(shape)]
    for one in worst:
        counted = one.truth != IGNORED
        share = ((one.said != one.truth) & counted).sum().item() / counted.sum().item()
        ious = []
        for number in range(3):
            a, b = one.truth == number, (one.said == number) & counted
            ious.append((a & b).sum().item() / (a | b).sum().item())
        assert f"IoU {100 * sum(ious) / 3:.1f} %" in said
        assert f"thing {one.number}, {100 * share:.1f} % of its {unit} wrong" in said
    if len(shape) == 3:
        assert "The middle slice, 3 of 5. Figures are of whole things." in " ".join(said)
    figure.draw_without_rendering()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.x1 <= figure.bbox.width + 1, text.get_text()
        assert box.y0 >= -1, text.get_text()


def test_of_a_signal_the_strips_are_as_long_as_its_stretches() -> None:
    truth = torch.tensor([255, 0, 1, 1, 1, 0, 0, 0, 0, 0], dtype=torch.uint8)
    said = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], dtype=torch.uint8)
    one = Overlap.of(0, torch.randn(1, 10), truth, said, CLASSES)
    colors = {WRONG: "w", LEFT_OUT: "?", "#000000": ".", str(overlays.color_of(1)): "1"}
    names = {tuple(rgb(color)): name for color, name in colors.items()}
    drawn = [np.asarray(image.get_array()) for image in overlays.masks([one], CLASSES).axes[0].images]
    assert [{len(tile[0])} for tile in drawn] == [{800}] * 3
    read = ["".join(names[tuple(pixel)] for pixel in tile[0, 40::80, :3].tolist()) for tile in drawn]
    assert read == ["?.111.....", "...111....", "?.w..w...."]


def test_a_single_wrong_sample_of_a_very_long_signal_is_seen() -> None:
    truth = torch.zeros(100_000, dtype=torch.uint8)
    said = truth.clone()
    said[77_777] = 1
    pixels = overlays.strip(Overlap.of(0, torch.zeros(1, 100_000), truth, said, CLASSES), "wrong")
    assert pixels.shape == (1, 800, 4)
    assert pixels[0, :, 3].nonzero()[0].tolist() == [77_777 * 800 // 100_000]


def test_an_example_without_labels_says_so_and_comes_last() -> None:
    nothing = torch.full((4, 4), IGNORED, dtype=torch.uint8)
    one = Overlap.of(7, torch.zeros(1, 4, 4), nothing, torch.zeros_like(nothing), CLASSES)
    assert "picture 7, no labelled pixels" in texts(overlays.masks([one], CLASSES))
    assert one.badness < 0 < example().badness


@pytest.mark.parametrize("width", [3.75, 10.0])
def test_bars_are_as_long_as_iou_and_dice(width: float) -> None:
    one = example((20, 20))
    evaluation = MaskEvaluation.of((*CLASSES, "void")).add(one.said[None], one.truth[None])
    figure = overlays.overlap_per_class(evaluation, width=width)
    bars: dict[str, list[float]] = {}
    for patch in figure.axes[0].patches:
        color = to_hex(patch.get_facecolor())
        bars.setdefault(color, []).append(patch.get_width())  # type: ignore[attr-defined]
    whole = max(bars[sheets.LINE])
    counted = one.truth != IGNORED
    pairs = []
    for number in range(3):
        a, b = (one.truth == number), (one.said == number) & counted
        both, sizes = (a & b).sum().item(), a.sum().item() + b.sum().item()
        pairs.append((both / (sizes - both), 2 * both / sizes))
    pairs.sort(reverse=True)
    np.testing.assert_allclose(np.array(bars[sheets.BLUE]) / whole, [iou for iou, _ in pairs])
    np.testing.assert_allclose(np.array(bars[sheets.MUTED]) / whole, [dice for _, dice in pairs])
    said = texts(figure)
    assert {f"{100 * share:.1f} %" for pair in pairs for share in pair} <= set(said)
    assert f"mean IoU {100 * sum(iou for iou, _ in pairs) / 3:.1f} %" in said
    assert "neither there nor predicted" in said


def test_of_very_many_classes_the_best_and_the_worst_are_listed() -> None:
    names = tuple(f"class {i}" for i in range(200))
    masks = torch.randint(0, 200, (1, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    figure = overlays.overlap_per_class(MaskEvaluation.of(names).add(masks, masks))
    assert sum(text.startswith("class ") for text in texts(figure)) == 40
    assert "… 160 classes in between …" in texts(figure)
