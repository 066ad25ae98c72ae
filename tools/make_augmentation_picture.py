"""Draws docs/images/augmentation.jpg: what each step makes of one picture, several times.

    python tools/make_augmentation_picture.py

The picture is matplotlib's sample of Grace Hopper (U.S. Navy, public domain); the partner for mixing is drawn here.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from striate import files, rendering
from striate.augmentation import Augmentation, parse, recipe
from striate.draws import Chance
from striate.images import from_pillow
from striate.sheets import INK, MUTED

TARGET = Path(__file__).parent.parent / "docs" / "images" / "augmentation.jpg"
SIZE = 128
DRAWS = 7
STEPS = (
    "shift 24",
    "shift 24 zeros",
    "flip",
    "crop 0.25..1",
    "colour 0.4 0.5 0.9",
    "cutout 48",
    "mixup 1",
    "cutmix",
    "kornia RandomRotation degrees=30 p=1",
)


def portrait() -> Tensor:
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        return from_pillow(photo.crop((110, 0, 430, 320)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def stripes() -> Tensor:
    """The partner: diagonal stripes in two colours."""
    down, across = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    which = ((down + across) // 12 % 2).unsqueeze(0)
    one, other = (torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1) for colour in ((240, 180, 40), (20, 90, 150)))
    return torch.where(which == 0, one, other)


def drawn(augmentation: Augmentation, pictures: Tensor) -> Tensor:
    """The altered pictures, ``(DRAWS, 3, SIZE, SIZE)`` from 0 to 1."""
    augmentation = Augmentation(augmentation.steps, 2)
    chance = Chance(4, 0, torch.arange(2 * DRAWS))
    inputs, _ = augmentation(pictures, torch.arange(2 * DRAWS) % 2, chance, lambda x: x.float() / 127.5 - 1)
    return inputs[::2].add(1).div(2).clamp(0, 1)


def main() -> None:
    pictures = torch.stack([portrait(), stripes()] * DRAWS)
    rows = [(text, parse(text)) for text in STEPS]
    rows += [(name, recipe(name, "picture", "classes", (3, SIZE, SIZE))) for name in ("standard", "strong")]
    side, gap, label = 0.92, 0.06, 1.25
    width, height = label + DRAWS * (side + gap), len(rows) * (side + gap) + gap
    figure = Figure((width, height), facecolor="white")
    for number, (text, augmentation) in enumerate(rows):
        bottom = height - (number + 1) * (side + gap)
        name, *settings = text.split()
        lines = "\n".join(settings) if name == "kornia" else " ".join(settings)
        figure.text(0.1 / width, (bottom + side * 0.6) / height, name, size=10, weight="bold", color=INK)
        figure.text(0.1 / width, (bottom + side * 0.5) / height, lines, size=9, color=MUTED, va="top")
        for column, image in enumerate(drawn(augmentation, pictures)):
            left = label + column * (side + gap)
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.imshow(image.movedim(0, -1).numpy(), interpolation="antialiased")
            axes.set_axis_off()
    stream = io.BytesIO()
    with Image.open(io.BytesIO(rendering.to_png(figure, dpi=110))) as image:
        image.convert("RGB").save(stream, "jpeg", quality=90, optimize=True)
    files.write(TARGET, stream.getvalue())


if __name__ == "__main__":
    main()
