"""What networks trained with Striate reach on real data, beside plain PyTorch with the same network and budget.

The Striate side is one call of ``striate.train``, which is also printed as a command line. The other side is PyTorch's
own layers, optimisers and one-cycle schedule, with as many epochs, the same batch size and normalisation, and
augmentation in a few lines of tensor code. Both read the same decoded examples and take the same number of threads.
A figure is that of the last epoch, on the test part; nothing was chosen by it. Seconds are those of the training
steps: reading and evaluation are not counted.

    python benchmarks/accuracy.py mnist nuclei --data FOLDER --seeds 3 --threads 2 --json result.json

The folder holds mnist/ and fashion-mnist/ (IDX files), cifar10/cifar10-jpeg.zip and clothing/clothing-160.zip (a
folder for each class), nuclei/nuclei.zip (BBBC039: images/ and masks/, split as benchmarks/nuclei-split.csv says) and
spoken-digits/spoken-digits.zip (DIGIT_SPEAKER_INDEX.wav; of each, indices 0 to 4 are the test part).
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

import striate
from striate import datasets
from striate.metrics import MaskEvaluation

Altered = tuple[Tensor, Tensor]

SOUND_NETWORK = """let TWICE(f) = [CONV 3-f bias=no -> BN -> RELU]*2
INPUT 1x5120 -> CONV 80-64 stride=4 padding=38 bias=no -> BN -> RELU -> POOL 4
-> TWICE(64) -> POOL 4 -> TWICE(128) -> POOL 4 -> TWICE(256) -> GLOBALAVGPOOL -> DROPOUT 0.2 -> FC 10"""
CIFAR_RESNET = """let UNIT(f) = CONV 3-f bias=no -> BN -> RELU
let BLOCK(f) = SUM[UNIT(f) -> UNIT(f) | IDENTITY]
INPUT 3x32x32 -> UNIT(32) -> UNIT(64) -> POOL 2 -> BLOCK(64) -> UNIT(256) -> POOL 2 -> [UNIT(256)]*2 -> POOL 2
-> BLOCK(256) -> GLOBALPOOL -> FC 10 bias=no -> SCALE bias=no start=0.125"""
CLOTHING_RESNET = """let CONVBN(k, f, s=1) = CONV k-f stride=s padding={k//2} bias=no -> BN
let PATH(f, s) = CONVBN(3, f, s) -> RELU -> CONVBN(3, f)
let STAGE(f) = SUM[PATH(f, 2) | CONVBN(1, f, 2)] -> RELU
INPUT 3x96x96 -> CONVBN(5, 32, 2) -> RELU -> POOL 2 -> SUM[PATH(32, 1) | IDENTITY] -> RELU
-> STAGE(64) -> STAGE(128) -> STAGE(256) -> GLOBALAVGPOOL -> DROPOUT 0.2 -> FC 10"""
SMALL_UNET = """let TWICE(f) = [CONV 3-f bias=no -> BN -> RELU]*2
INPUT 1x192x192 -> TWICE(16) as one -> POOL 2 -> TWICE(32) as two -> POOL 2 -> TWICE(64) as three -> POOL 2
-> TWICE(128) -> DECONV 2-64 -> CONCAT[from three | IDENTITY] -> TWICE(64)
-> DECONV 2-32 -> CONCAT[from two | IDENTITY] -> TWICE(32)
-> DECONV 2-16 -> CONCAT[from one | IDENTITY] -> TWICE(16) -> CONV 1-2"""


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def sound_network() -> nn.Module:
    layers: list[nn.Module] = []
    pairs = ((1, 64, 4), (64, 64, 1), (64, 64, 4), (64, 128, 1), (128, 128, 4), (128, 256, 1), (256, 256, 1))
    for before, after, pool in pairs:
        window, stride, padding = (80, 4, 38) if before == 1 else (3, 1, 1)
        convolution = nn.Conv1d(before, after, window, stride, padding, bias=False)
        layers += [convolution, nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(pool) if pool > 1 else nn.Identity()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10))


def normalised(before: int, after: int, window: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, window, stride, window // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def unit(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(normalised(before, after), nn.ReLU())


def twice(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(unit(before, after), unit(after, after))


class Sum(nn.Module):
    def __init__(self, path: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.path, self.shortcut = path, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.path(x) + self.shortcut(x)


class Scale(nn.Module):
    def __init__(self, features: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((features,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def cifar_resnet() -> nn.Module:
    return nn.Sequential(
        unit(3, 32), unit(32, 64), nn.MaxPool2d(2), Sum(twice(64, 64)), unit(64, 256), nn.MaxPool2d(2),
        twice(256, 256), nn.MaxPool2d(2), Sum(twice(256, 256)),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(256, 10, bias=False), Scale(10, 0.125),
    )  # fmt: skip


def clothing_resnet() -> nn.Module:
    layers: list[nn.Module] = [normalised(3, 32, 5, 2), nn.ReLU(), nn.MaxPool2d(2)]
    for before, after in ((32, 32), (32, 64), (64, 128), (128, 256)):
        stride = 1 if before == after else 2
        path = nn.Sequential(normalised(before, after, 3, stride), nn.ReLU(), normalised(after, after))
        layers += [Sum(path, normalised(before, after, 1, 2) if stride == 2 else None), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10))


class SmallUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64)
        self.down = nn.ModuleList(twice(a, b) for a, b in zip((1, *widths), widths, strict=False))
        self.bottom = twice(64, 128)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths))
        self.joined = nn.ModuleList(twice(2 * w, w) for w in reversed(widths))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = []
        for block in self.down:
            across.append(block(x))
            x = F.max_pool2d(across[-1], 2)
        x = self.bottom(x)
        for up, block in zip(self.up, self.joined, strict=True):
            x = block(torch.cat((across.pop(), up(x)), 1))
        return self.last(x)


def cut(x: Tensor, size: tuple[int, ...], starts: Tensor) -> Tensor:
    """From every example a part of this size, where its column of ``starts`` says."""
    for axis, length in enumerate(size, 2):
        x = x.unfold(axis, length, 1)
    return x[(torch.arange(len(x)), slice(None), *starts)]


def shifted(x: Tensor, reach: int, mode: str = "reflect") -> Tensor:
    axes = x.dim() - 2
    starts = torch.randint(2 * reach + 1, (axes, len(x)))
    return cut(F.pad(x, (reach,) * 2 * axes, mode=mode), tuple(x.shape[2:]), starts)


def coin(count: int, axes: int) -> Tensor:
    return (torch.rand(count) < 0.5).view(-1, *(1,) * axes)


def flipped(x: Tensor) -> Tensor:
    return torch.where(coin(len(x), 3), x.flip(-1), x)


def moved_and_flipped(x: Tensor, y: Tensor) -> Altered:
    return flipped(shifted(x, 4)), y


def cropped_and_flipped(x: Tensor, y: Tensor) -> Altered:
    """A box of 0.4 to 1 of every picture, 3:4 to 4:3, brought to its size."""
    area, ratio = torch.empty(len(x)).uniform_(0.4, 1), torch.empty(len(x)).uniform_(-0.2877, 0.2877).exp()
    size = torch.stack((area * ratio, area / ratio), 1).sqrt().clamp(max=1)
    theta = torch.cat((torch.diag_embed(size), ((1 - size) * torch.empty(len(x), 2).uniform_(-1, 1))[:, :, None]), 2)
    return flipped(F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)), y


def altered_sound(x: Tensor, y: Tensor) -> Altered:
    """Shifted, up to 6 decibels louder or softer, noisy, and mixed with another recording."""
    x = shifted(x, 640, "constant") * 10 ** (torch.empty(len(x), 1, 1).uniform_(-6, 6) / 20)
    x = x + 0.05 * torch.randn_like(x)
    share, other, labels = Beta(0.2, 0.2).sample((len(x), 1)), torch.randperm(len(x)), F.one_hot(y, 10).float()
    mixed = share[:, None] * x + (1 - share[:, None]) * x[other]
    return mixed, share * labels + (1 - share) * labels[other]


def patches(x: Tensor, y: Tensor) -> Altered:
    """Patches of 192x192, mirrored along both axes, with their masks."""
    height, width = x.shape[2:]
    starts = torch.stack([torch.randint(n - 191, (len(x),)) for n in (height, width)])
    both = cut(torch.cat((x, y[:, None].float()), 1), (192, 192), starts)
    for axis in (-1, -2):
        both = torch.where(coin(len(x), 3), both.flip(axis), both)
    return both[:, :1], both[:, 1].long()


def digits_index(archive: Path, folder: Path) -> Path:
    """An index file of the recordings, beside a copy of the archive: paths cannot leave its folder."""
    shutil.copyfile(archive, folder / archive.name)
    rows = ["file,label,split"]
    for name in sorted(zipfile.ZipFile(archive).namelist()):
        digit, _, index = name.removesuffix(".wav").split("_")
        rows.append(f"{archive.name}/{name},{digit},{'test' if int(index) < 5 else 'train'}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder / "index.csv"


def nuclei_index(archive: Path, folder: Path) -> Path:
    """The split of the repository, beside a copy of the archive."""
    shutil.copyfile(archive, folder / archive.name)
    split = Path(__file__).with_name("nuclei-split.csv")
    return Path(shutil.copyfile(split, folder / split.name))


@dataclass(frozen=True)
class Task:
    """A network, a data set and a recipe.

    Args:
        source: The data, below the folder that holds all.
        network: What Striate is told.
        plain: The same network of PyTorch's layers.
        options: What Striate is told besides.
        goal: Accuracy, or IoU of the last class for masks, to be reached.
        augment: What Striate's ``augment`` and ``patch`` do, in plain PyTorch.
        index: Makes an index file, from the archive and into a folder.
        mirrored: Pictures are also judged together with their mirror images.
    """

    source: str
    network: str
    plain: Callable[[], nn.Module]
    options: Mapping[str, Any]
    goal: float | None = None
    augment: Callable[[Tensor, Tensor], Altered] | None = None
    index: Callable[[Path, Path], Path] | None = None
    mirrored: bool = False


ADAMW = {"optimizer": "adamw", "learning_rate": 6e-3, "weight_decay": 0.1}
TASKS = {
    "mnist": Task("mnist", "lenet5", lenet5, {"epochs": 10, "batch_size": 128, **ADAMW}, 0.991),
    "fashion-mnist": Task("fashion-mnist", "lenet5", lenet5, {"epochs": 15, "batch_size": 128, **ADAMW}, 0.91),
    "cifar10": Task(
        "cifar10/cifar10-jpeg.zip", CIFAR_RESNET, cifar_resnet,
        {"epochs": 15, "batch_size": 128, "optimizer": "momentum", "learning_rate": 0.08, "weight_decay": 5e-4,
         "label_smoothing": 0.1, "augment": "shift 4, alternating-flip"},
        0.91, moved_and_flipped, mirrored=True,
    ),
    "spoken-digits": Task(
        "spoken-digits/spoken-digits.zip", SOUND_NETWORK, sound_network,
        {"epochs": 50, "batch_size": 32, **ADAMW, "learning_rate": 4e-3, "label_smoothing": 0.1,
         "augment": "shift 640 zeros, gain 6, noise 0.05, mixup 0.2"},
        0.97, altered_sound, digits_index,
    ),
    "nuclei": Task(
        "nuclei/nuclei.zip", SMALL_UNET, SmallUNet,
        {"patch": (192, 192), "epochs": 16, "batch_size": 8, **ADAMW, "learning_rate": 4e-3,
         "loss": "softmax+dice", "augment": "flip, flip -2"},
        0.85, patches, nuclei_index,
    ),
    "clothing": Task(
        "clothing/clothing-160.zip", CLOTHING_RESNET, clothing_resnet,
        {"epochs": 40, "batch_size": 32, "optimizer": "momentum", "learning_rate": 0.05, "weight_decay": 1e-3,
         "label_smoothing": 0.1, "augment": "crop 0.4..1, flip"},
        None, cropped_and_flipped, mirrored=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Of one seed: the figure of the test part, and seconds of training.

    Args:
        figure: Accuracy, or IoU of the last class of masks.
        seconds: Of the training steps.
        mean_iou: Of all classes of masks.
        mirrored: Accuracy if the probabilities of a picture and of its mirror image are averaged.
    """

    figure: float
    seconds: float
    mean_iou: float | None = None
    mirrored: float | None = None


def command(task: Task, data: Path, seed: int, precision: str) -> str:
    """What a user would type for the same."""
    words = ["striate", "train", task.network, "--data", str(data)]
    for name, value in {**task.options, "precision": precision, "seed": seed}.items():
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join([*words, "--no-report"])


def train_with_striate(task: Task, data: Path, out: Path, seed: int, precision: str) -> Outcome:
    run = striate.train(task.network, data, out=out, seed=seed, precision=precision, report=False, **task.options)
    seconds = sum(figures["seconds"] for figures in run.history)
    if isinstance(run.evaluation, MaskEvaluation):
        last = list(run.evaluation.iou.values())[-1]
        return Outcome(last or 0.0, seconds, run.evaluation.mean_iou)
    mirrored = striate.evaluate(run.folder, average="flip").accuracy if task.mirrored else None
    return Outcome(run.metrics["accuracy"], seconds, mirrored=mirrored)


def train_with_torch(task: Task, data: datasets.Dataset, seed: int, precision: str) -> Outcome:
    """The loop of every tutorial, over tensors that are normalised beforehand."""
    options, normalise = task.options, datasets.Normalisation.of(data.train)
    (inputs, y), (tested, truth) = (part.take(torch.arange(len(part))) for part in (data.train, data.test))
    x, y, tested, truth = normalise(inputs), y.long(), normalise(tested), truth.long()
    torch.manual_seed(seed)
    model = task.plain()
    layout = layout_of(model)
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    rate, decay = options["learning_rate"], options["weight_decay"]
    if options["optimizer"] == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay, fused=True)
    steps = options.get("steps") or options["epochs"] * -(-len(x) // options["batch_size"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.25, cycle_momentum=False)
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    done, began = 0, time.perf_counter()
    while done < steps:
        for batch in torch.randperm(len(x)).split(options["batch_size"])[: steps - done]:
            inputs, targets = x[batch], y[batch]
            if task.augment is not None:
                inputs, targets = task.augment(inputs, targets)
            with half:
                scores = model(inputs.contiguous(memory_format=layout))
            loss = F.cross_entropy(scores.float(), targets, label_smoothing=options.get("label_smoothing", 0.0))
            if options.get("loss") == "softmax+dice":
                loss = loss + dice(scores.float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
    outcome = judged(model.eval(), tested, truth, time.perf_counter() - began)
    return replace(outcome, mirrored=judged_mirrored(model, tested, truth)) if task.mirrored else outcome


def dice(scores: Tensor, masks: Tensor) -> Tensor:
    """One minus the Dice coefficient, over the classes and pictures of a batch."""
    said, truth = scores.softmax(1), F.one_hot(masks, scores.shape[1]).movedim(-1, 1)
    overlap, sizes = (said * truth).sum((2, 3)), said.sum((2, 3)) + truth.sum((2, 3))
    return (1 - (2 * overlap + 1) / (sizes + 1)).mean()


def layout_of(model: nn.Module) -> torch.memory_format:
    """Channels-last, which is faster for all pictures but those of LeNet-5's few channels."""
    wide = any(isinstance(layer, nn.Conv2d) and layer.in_channels >= 16 for layer in model.modules())
    return torch.channels_last if wide else torch.contiguous_format


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, truth: Tensor, seconds: float) -> Outcome:
    """Accuracy, or IoU over all pixels of the test part."""
    said = torch.cat([model(part).argmax(1) for part in x.split(4 if truth.dim() > 1 else 500)])
    if truth.dim() == 1:
        return Outcome((said == truth).double().mean().item(), seconds)
    both = [((said == c) & (truth == c)).sum() / ((said == c) | (truth == c)).sum() for c in (0, 1)]
    return Outcome(both[1].item(), seconds, (both[0] + both[1]).item() / 2)


@torch.no_grad()
def judged_mirrored(model: nn.Module, x: Tensor, truth: Tensor) -> float:
    """Accuracy of the mean of the probabilities of both views."""
    said = [model(part).softmax(1) + model(part.flip(-1)).softmax(1) for part in x.split(500)]
    return (torch.cat(said).argmax(1) == truth).double().mean().item()


SIDES = ("striate", "torch")


def measure(name: str, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One row: the outcomes of both sides for every seed, in turns."""
    sides = [arguments.only] if arguments.only else SIDES
    task = shortened(TASKS[name]) if arguments.quick else TASKS[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    data: Path = arguments.data / task.source
    if task.index is not None:
        data = task.index(data, folder)
    ours, theirs = striate.describe(task.network).totals.parameters, sum(p.numel() for p in task.plain().parameters())
    if ours != theirs:
        raise SystemExit(f"{name}: the networks have {ours:,} and {theirs:,} parameters; they must be the same.")
    print(f"{name}: {ours:,} parameters\n  {command(task, data, 0, arguments.precision)}", flush=True)
    loaded = datasets.load(data, size=task.options.get("size") or pictured(task)) if "torch" in sides else None
    outcomes: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for seed in range(arguments.seeds):
        for side in sides:
            if side == "striate":
                run = folder / f"striate-seed-{seed}"
                outcome = train_with_striate(task, data, run, seed, arguments.precision)
            elif loaded is not None:
                outcome = train_with_torch(task, loaded, seed, arguments.precision)
            outcomes[side].append(asdict(outcome))
            print(f"  seed {seed} {side:<8} {shown(outcome)}", flush=True)
    return {"task": name, "goal": task.goal, "parameters": ours, "options": dict(task.options), **outcomes}


def pictured(task: Task) -> tuple[int, ...] | None:
    """The size that the text gives its pictures; None where it is that of patches or of the zoo."""
    if "patch" in task.options or not task.network.count("INPUT"):
        return None
    return tuple(map(int, task.network.partition("INPUT ")[2].split()[0].split("x")[1:]))


def shortened(task: Task) -> Task:
    """Twenty steps, to see that everything runs."""
    return replace(task, options={name: v for name, v in task.options.items() if name != "epochs"} | {"steps": 20})


def shown(outcome: Outcome) -> str:
    more = "" if outcome.mean_iou is None else f"   mean IoU {100 * outcome.mean_iou:.2f} %"
    more += "" if outcome.mirrored is None else f"   with mirror images {100 * outcome.mirrored:.2f} %"
    return f"{100 * outcome.figure:6.2f} %   {outcome.seconds:7.1f} s{more}"


def table(rows: list[dict[str, Any]]) -> str:
    """The mean over seeds, the seeds, the seconds, and the goal."""
    lines = [f"{'task':<14} {'side':<8} {'mean':>7}  {'seconds':>8}  {'goal':>6}           each seed"]
    for row in rows:
        for side in SIDES:
            if not row.get(side):
                continue
            figures = [100 * outcome["figure"] for outcome in row[side]]
            mean, seconds = statistics.mean(figures), statistics.mean(outcome["seconds"] for outcome in row[side])
            goal = row["goal"] and 100 * row["goal"]
            verdict = f"{goal:6.1f}  {'reached' if mean >= goal else 'missed':<7}" if goal else f"{'-':>6}         "
            each = "  ".join(f"{figure:.2f}" for figure in figures)
            lines.append(f"{row['task']:<14} {side:<8} {mean:7.2f}  {seconds:8.1f}  {verdict}  {each}")
        if all(row.get(side) for side in SIDES):
            lines.append(f"{'':<14} {compared(row)}")
    return "\n".join(lines)


def compared(row: Mapping[str, Any]) -> str:
    """How both sides differ, in points and in time."""
    figure, seconds = (
        [statistics.mean(outcome[key] for outcome in row[side]) for side in SIDES] for key in ("figure", "seconds")
    )
    points, faster = 100 * (figure[0] - figure[1]), seconds[1] / seconds[0]
    return f"striate is {points:+.2f} points from torch, and {faster:.2f} times as fast"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", metavar="TASK", choices=TASKS, help=", ".join(TASKS))
    parser.add_argument("--data", type=Path, required=True, help="folder of all data sets")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each")
    parser.add_argument("--only", choices=SIDES, help="one side alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--out", type=Path, help="folder of the runs; not given, they are thrown away")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--quick", action="store_true", help="twenty steps of each, to see that everything runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as spare:
        rows = []
        for name in arguments.tasks:
            rows.append(measure(name, arguments, arguments.out or Path(spare)))
            if arguments.json:
                about = {"torch": torch.__version__, "threads": arguments.threads, "precision": arguments.precision}
                arguments.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
