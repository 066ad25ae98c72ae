"""Makes the bundled data set: the first pictures of Fashion-MNIST, from a folder of its official IDX files.

python tools/make_bundled_data.py FOLDER

The file has fixed dates and order, so one version of zlib makes the same bytes every time.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from striate.datasets import load

COUNTS = {"train": 10_000, "test": 2_000}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
TARGET = Path(__file__).parents[1] / "src" / "striate" / "data" / "fashion-mnist-mini.npz"


def arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    data = load(folder)
    made: dict[str, np.ndarray[Any, Any]] = {"classes": np.array(CLASSES)}
    for part, count in COUNTS.items():
        split = getattr(data, part)
        made[f"{part}_images"] = split.inputs[:count, 0].numpy()
        made[f"{part}_labels"] = split.targets[:count].numpy().astype(np.uint8)
    return made


def write(path: Path, held: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """What ``np.savez_compressed`` writes, but with nothing of the machine or the moment in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in held.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


if __name__ == "__main__":
    write(TARGET, arrays(Path(sys.argv[1])))
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
