"""The command line: what it prints, its exit codes, and that a user's mistake is one clear paragraph."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from rich.console import Console

import striate
from striate import cli, commands, data_verbs, images, metrics
from striate.metrics import Evaluation
from striate.operations import OPERATIONS
from striate.options import Options
from striate.prediction import Prediction

VERBS = (
    *("data", "train", "sweep", "evaluate", "predict", "show", "export", "trace"),
    *("describe", "check", "plan", "bench", "zoo"),
)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    monkeypatch.setattr(sys, "argv", ["striate", *words])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def striate_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: run(capsys, monkeypatch, *words)


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_in_an_example(striate_: Any, verb: str) -> None:
    code, out, _ = striate_(verb, "--help")
    assert code == 0
    assert f"Example: striate {verb}" in " ".join(out.split())


def test_the_version_is_that_of_the_package(striate_: Any) -> None:
    assert striate_("--version") == (0, f"striate {version('striate')}\n", "")


def test_help_names_every_verb(striate_: Any) -> None:
    code, out, _ = striate_("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


def test_examples_of_the_help_that_need_no_run_work(striate_: Any) -> None:
    code, out, _ = striate_("describe", "INPUT 3x32x32 -> [CONV3-16 -> RELU -> POOL]*2 -> FC 10")
    assert (code, out) == (0, str(striate.describe("INPUT 3x32x32 -> [CONV3-16 -> RELU -> POOL]*2 -> FC 10")) + "\n")
    code, out, _ = striate_("zoo", "lenet5")
    assert (code, out) == (0, striate.zoo.text("lenet5").rstrip() + "\n")


def test_plan_prints_the_three_directions(striate_: Any) -> None:
    words = ["plan", "2x4x9x8", "6x2x3x3", "--stride", "2x1", "--padding", "same", "--groups", "2"]
    code, out, _ = striate_(*words)
    options: dict[str, Any] = {"stride": (2, 1), "padding": "same", "groups": 2}
    plans = [
        striate.plan((2, 4, 9, 8), (6, 2, 3, 3), **options, direction=direction)
        for direction in ("forward", "input_gradient", "weight_gradient")
    ]
    assert (code, out) == (0, "\n\n".join(map(str, plans)) + "\n")
    code, out, _ = striate_(*words, "--json")
    assert (code, json.loads(out)) == (0, [plan.to_dict() for plan in plans])
    assert json.loads(out)[1]["direction"] == "input_gradient"


def test_plan_measures_and_merges(striate_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    code, out, _ = striate_("plan", "1x2x5", "3x2x3", "--measure")
    assert (code, out.count("convolution, measured") + out.count("weight gradient, measured")) == (0, 2)
    code, out, _ = striate_("plan", "--calibrate")
    assert (code, out.count("GFLOP/s"), out.count("GB/s")) == (0, 4, 1)
    (tmp_path / "cache" / "wisdom.jsonl").rename(tmp_path / "other.jsonl")
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "empty"))
    assert striate_("plan", "--merge", str(tmp_path / "other.jsonl"))[:2] == (0, "4 new measurements\n")
    assert striate_("plan")[::2] == (
        2, "Error: plan: give the shapes of input and weights, as in striate plan 8x64x56x56 128x64x3x3.\n"
    )  # fmt: skip


def test_plan_of_a_transposed_convolution(striate_: Any) -> None:
    code, out, _ = striate_(
        "plan", "1x4x3", "4x3x3", "--stride", "2", "--padding", "1", "--output-padding", "1", "--transposed",
        "--algorithm", "reference", "--dtype", "float64",
    )  # fmt: skip
    # 3 inputs times 3 taps times 4 x 3 channels
    assert (code, out.splitlines()[0]) == (0, "reference: convolution, input gradient, 108 multiply-adds")


def test_describe_takes_variables_and_an_input_and_prints_json(striate_: Any) -> None:
    words = ["describe", "INPUT -> CONV -> FC -> FC", "--input", "1x10x10", "--filters", "4", "--hidden", "6"]
    code, out, _ = striate_(*words, "--classes", "2", "--json")
    table = striate.describe("INPUT 1x10x10 -> CONV3-4 -> FC 6 -> FC 2")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(table.to_dict()))
    assert json.loads(out)["totals"]["parameters"] == 1 * 9 * 4 + 4 + 400 * 6 + 6 + 6 * 2 + 2


def test_zoo_lists_counts(striate_: Any) -> None:
    code, out, _ = striate_("zoo", "--json")
    assert code == 0
    found = {entry["name"]: entry["parameters"] for entry in json.loads(out)}
    assert sorted(found) == list(striate.zoo.names())
    assert (found["lenet5"], found["vgg16"], found["resnet50"]) == (61_706, 138_357_544, 25_557_032)
    code, out, _ = striate_("zoo")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("vgg16 "))
    assert line.split(maxsplit=1)[1] == "138,357,544 parameters   15,470,264,320 multiply-adds  INPUT 3x224x224"


def test_check_prints_findings_and_exits_with_one_on_errors(striate_: Any) -> None:
    text = "INPUT 1x32x32 -> [CONV3-8 dilation=2 -> RELU]*3 -> GLOBALAVGPOOL -> FC 10"
    code, out, err = striate_("check", text)
    assert (code, err) == (0, "")
    assert out.startswith("<text>:1:19: STR011 conv1, conv2 and conv3 with dilations 2, 2, 2 read 49 of the 169")
    code, out, _ = striate_("check", text, "--json")
    assert [finding["code"] for finding in json.loads(out)] == ["STR011"]
    code, out, _ = striate_("check", text, "--sarif")
    assert json.loads(out)["version"] == "2.1.0"
    unfit = "INPUT 1x30x30 -> CONV3-8 as a -> [POOL]*2 -> [DECONV]*2 -> SUM[IDENTITY | from a] -> CONV1-2"
    code, out, _ = striate_("check", unfit, "--filters", "8")
    assert code == 1
    assert "STR005" in out
    assert striate_("check", "resnet18")[:2] == (0, "No findings.\n")


def test_describe_compares_networks(striate_: Any) -> None:
    code, out, _ = striate_("describe", "lenet5", "vgg16")
    found = {name: striate.describe(name) for name in ("lenet5", "vgg16")}
    assert (code, out) == (0, f"{striate.compare(found)}\n")
    code, out, _ = striate_("describe", "INPUT 3x8x8 -> CONV3-8 -> CONV3-8 -> FC 10", "lenet5", "lenet5", "--json")
    assert code == 0
    assert [one["network"] for one in json.loads(out)["networks"]] == ["text 1", "lenet5 (2)", "lenet5 (3)"]


def test_describe_binds_and_sweeps_names(striate_: Any) -> None:
    text = "INPUT 3x8x8 -> [CONV3-4 -> POOL?]*N -> FC 10"
    code, out, _ = striate_("describe", text, "N=2", "POOL=no")
    assert (code, out) == (0, f"{striate.describe(text, N=2, POOL=False)}\n")
    code, out, _ = striate_("describe", text, "N=1..3", "POOL=yes,no")
    choices: dict[str, list[Any]] = {"N": [1, 2, 3], "POOL": ["yes", "no"]}
    assert (code, out) == (0, f"{striate.sweep(text, choices)}\n")


def test_describe_takes_the_input_as_a_name(striate_: Any) -> None:
    code, out, _ = striate_("describe", "INPUT -> CONV3-8 -> FC 3", "input=1x9x9")
    assert (code, out) == (0, f"{striate.describe('INPUT 1x9x9 -> CONV3-8 -> FC 3')}\n")


def test_describe_writes_files(striate_: Any, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "html", "png", "svg")}
    code, _, _ = striate_("describe", "lenet5", "--csv", str(paths["csv"]), "--html", str(paths["html"]))
    table = striate.describe("lenet5")
    assert code == 0
    assert paths["csv"].read_bytes().decode() == table.csv()
    assert paths["html"].read_text(encoding="utf-8") == table.page("lenet5")
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<")):
        code, _, _ = striate_("describe", "lenet5", "--picture", str(paths[kind]))
        assert code == 0
        assert paths[kind].read_bytes().startswith(start)


def test_describe_tells_times(striate_: Any) -> None:
    code, out, _ = striate_("describe", "lenet5", "--time")
    assert code == 0
    assert out.splitlines()[0].endswith("time  by")
    assert "vendor" in out


def test_the_whole_way(striate_: Any, bars_folder: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "run"
    text = "INPUT -> [CONV 3x3x8 -> RELU -> POOL]*N -> FC"
    words = ["train", text, "N=1", "--data", str(bars_folder), "--out", str(out_folder)]
    code, out, err = striate_(*words, "--epochs", "8", "--batch-size", "16", "--json")
    trained = json.loads(out)
    assert (code, err) == (0, "")
    assert trained["accuracy"] >= 0.9
    assert Path(trained["report"]) == out_folder / "report.html"
    assert len(trained["history"]) == 8

    code, out, _ = striate_("evaluate", str(out_folder), "--json")
    found = json.loads(out)
    assert (code, found["accuracy"], found["loss"]) == (0, trained["accuracy"], trained["loss"])
    assert (found["examples"], sum(map(sum, found["confusion"]))) == (60, 60)
    code, out, _ = striate_("evaluate", str(out_folder))
    assert out.startswith(f"Accuracy {100 * trained['accuracy']:.2f} % of 60 examples, loss {trained['loss']:.4f}, ")

    picture = bars_folder / "test" / "crossed" / "002.png"
    code, out, _ = striate_("predict", str(out_folder), str(picture), "--top", "1")
    head, rule, row = out.splitlines()
    assert (code, head.split(), set(rule)) == (0, ["file", "class", "probability"], {"-"})
    assert row.split()[:2] == [str(picture), "crossed"]
    out = striate_("predict", str(out_folder), str(picture), str(picture.parent), "--top", "2")[1]
    head, _, *rows = out.splitlines()
    assert (head.split(), len(rows)) == (["file", "class", "probability", "then"], 21)
    assert len({row.index(" %") for row in rows}) == 1
    code, out, _ = striate_("predict", str(out_folder), str(bars_folder / "test" / "crossed"), "--json")
    assert [entry["label"] for entry in json.loads(out)].count("crossed") >= 16

    code, out, _ = striate_("show", str(out_folder), "--only", "filters", "--only", "curves")
    assert code == 0
    assert out.split() == [str(out_folder / "pictures" / name) for name in ("curves.png", "filters-conv1.png")]


def test_the_best_weights_are_named_where_they_are_not_the_last(bars_run: Any) -> None:
    falling = replace(bars_run, history=({"accuracy": 0.9, "loss": 0.1}, {"accuracy": 0.5, "loss": 0.9}))
    assert f"\nBest:       {bars_run.best}, of epoch 1, in place of the folder\n" in data_verbs._run_text(falling)
    rising = replace(falling, history=falling.history[::-1])
    assert "Best:" not in data_verbs._run_text(rising)


def test_every_switch_of_training_can_be_turned_off(striate_: Any) -> None:
    """So that what the report and a sweep tell one to type is understood."""
    _, help_, _ = striate_("train", "--help")
    switches = ("deterministic", "skip-bad", "stream", "report")
    assert [name for name in switches if f"--no-{name}" not in help_] == []


def test_train_prints_a_line_for_each_epoch_and_where_things_are(
    striate_: Any, bars_folder: Path, tmp_path: Path
) -> None:
    words = ["train", "INPUT -> FC", "--data", str(bars_folder), "--epochs", "2", "--batch-size", "full"]
    code, out, err = striate_(*words, "--out", str(tmp_path / "run"))
    assert code == 0
    assert [line.split()[:2] for line in err.splitlines()] == [["epoch", "1"], ["epoch", "2"]]
    assert out.splitlines()[1:] == [
        f"Report:     {tmp_path / 'run' / 'report.html'}",
        f"Checkpoint: {tmp_path / 'run' / 'checkpoint.safetensors'}",
        f"Predict:    striate predict {tmp_path / 'run'} FILE...",
    ]


NO_SUCH_LAYER = (
    "Error: Line 1, column 10: No layer is called 'CNOV'. Did you mean 'CONV'? "
    f"Known: {', '.join(sorted(OPERATIONS))}.\n  INPUT -> CNOV\n           ^\n"
)
NO_SUCH_NETWORK = (
    "Error: No network (nor a file) is called 'lenet'. Did you mean 'lenet5'? "
    f"Known: {', '.join(striate.zoo.names())}.\n"
)
NO_SUCH_PICTURE = (
    "Error: No picture is called 'curve'. Did you mean 'curves'? "
    "Known: accuracy, calibration, columns, confusion, curves, filters, masks, mistakes.\n"
)
NO_SIZE = "Error: --input 28: expected whole numbers joined by x, as in 3x224x224.\n"
NO_RUN = "Error: nowhere: there is no such checkpoint; train one with: striate train lenet5 --data fashion-mnist-mini\n"
NO_DATA = (
    "Error: name a network and a data set to train, as in striate train lenet5 --data fashion-mnist-mini, "
    "or striate.train('lenet5', 'fashion-mnist-mini').\n"
)
NO_EPOCHS = "Error: training cannot use\n  epochs=0: input should be greater than or equal to 1.\n"
MANY_EPOCHS = "Error: training cannot use\n  epochs='many': input should be a valid integer.\n"
FAILURES: list[tuple[list[str], int, str]] = [
    (["describe", "INPUT -> CNOV"], 2, NO_SUCH_LAYER),
    (["train", "INPUT -> [FC]*N", "N=1,2"], 2, "Error: N has several values; train takes one.\n"),
    (["check", "INPUT -> [FC]*N", "N=1..2"], 2, "Error: N has several values; check takes one.\n"),
    (["check", "lenet5", "nosuch"], 2, "Error: check takes one network, then NAME=VALUE; got 'lenet5' 'nosuch'.\n"),
    (["check", "N=2"], 2, "Error: check takes one network, then NAME=VALUE; got N=2.\n"),
    (
        ["train", "lenet5", "/"],
        2,
        "Error: train takes one network, then NAME=VALUE; got 'lenet5' '/'. If / is the data, type --data /.\n",
    ),
    (
        ["train", "lenet5", "a" * 300],
        2,
        f"Error: train takes one network, then NAME=VALUE; got 'lenet5' '{'a' * 300}'.\n",
    ),
    (["train", "lenet5", "vgg16"], 2, "Error: train takes one network, then NAME=VALUE; got 'lenet5' 'vgg16'.\n"),
    (
        ["describe", "lenet5", "classes=4", "--classes", "5"],
        2,
        "Error: classes is given twice: as --classes and as classes=4.\n",
    ),
    (
        ["describe", "INPUT -> [FC]*N", "N=1..9999999999"],
        2,
        "Error: N=1..9999999999: these are 9,999,999,999 values; at most 1,000 are compared.\n",
    ),
    (["describe", "N=2"], 2, "Error: describe needs a network: a text, a zoo name or a file.\n"),
    (["describe", "lenet5", "N="], 2, "Error: N=: expected N=2, N=1..3 or N=1,2,4, and each name once.\n"),
    (["describe", "lenet5", "N=1", "N=2"], 2, "Error: N=2: expected N=2, N=1..3 or N=1,2,4, and each name once.\n"),
    (
        ["describe", "lenet5", "vgg16", "N=1,2"],
        2,
        "Error: N has several values; that is for one network, not for 2.\n",
    ),
    (
        ["describe", "lenet5", "vgg16", "--time"],
        2,
        "Error: --time and --picture are for one network with one value for each name.\n",
    ),
    (
        ["describe", "lenet5", "--picture", "a.gif"],
        2,
        "Error: --picture a.gif: expected a name that ends in .png or .svg.\n",
    ),
    (
        ["describe", "lenet5", "N=2"],
        2,
        "Error: the network has no variable 'N'; it uses no names and leaves nothing open.\n",
    ),
    (["describe", "lenet"], 2, NO_SUCH_NETWORK),
    (["plan", "8x64", "8x64x3"], 2, "Error: X 8x64: expected whole numbers joined by x, as in 8x64x56x56.\n"),
    (["plan", "1x4x9", "8x64xk"], 2, "Error: WEIGHT 8x64xk: expected whole numbers joined by x, as in 128x64x3x3.\n"),
    (
        ["plan", "1x4x9", "8x4x3", "--stride", "a"],
        2,
        "Error: --stride a: expected a whole number, or one per axis joined by x, as in 2x1.\n",
    ),
    (
        ["plan", "1x4x9", "8x4x3", "--dtype", "int8"],
        2,
        "Error: --dtype int8: expected one of float32, bfloat16, float16, float64, complex64.\n",
    ),
    (
        ["plan", "1x4x9", "8x3x3"],
        2,
        "Error: plan 1x4x9 8x3x3: weight_shape=(8, 3, 3) takes 3 channels, x has 4.\n",
    ),
    (
        ["plan", "2x4x9", "6x4x3x3"],
        2,
        (
            "Error: plan 2x4x9 6x4x3x3: x_shape=(2, 4, 9) has 1 spatial axis, so weight_shape=(6, 4, 3, 3) is that of "
            "a tiled layer with period (6,), which takes 3 channels; x has 4.\n"
        ),
    ),
    (["describe", "lenet5", "--input", "28"], 2, NO_SIZE),
    (["evaluate", "nowhere"], 1, NO_RUN),
    (["show", "nowhere", "--only", "curve"], 2, NO_SUCH_PICTURE),
    (["train", "lenet5"], 2, NO_DATA),
    (["train", "lenet5", "--data", "fashion-mnist-mini", "--epochs", "0"], 2, NO_EPOCHS),
    (["train", "lenet5", "--data", "fashion-mnist-mini", "--epochs", "many"], 2, MANY_EPOCHS),
]


@pytest.mark.parametrize(("words", "code", "message"), FAILURES, ids=[" ".join(words) for words, *_ in FAILURES])
def test_a_mistake_is_one_paragraph_and_an_exit_code(striate_: Any, words: list[str], code: int, message: str) -> None:
    assert striate_(*words) == (code, "", message)


@pytest.mark.parametrize("words", [["describe"], ["train", "--epoch", "3"], ["fly"], ["train", "--top", "3"]])
def test_wrong_usage_is_exit_code_2(striate_: Any, words: list[str]) -> None:
    code, out, err = striate_(*words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "Usage: " in err


def test_ctrl_c_is_exit_code_1_without_a_traceback(
    striate_: Any, bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from striate import training

    def press(self: Any, tick: Any, pause: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Trainer, "epoch", press)
    code, out, err = striate_("train", "INPUT -> FC", "--data", str(bars_folder), "--out", str(tmp_path / "run"))
    assert (code, out) == (1, "")
    assert err == (
        f"Stopped after 0 of 15 epochs, which are kept in {tmp_path / 'run'}; "
        f"go on with: striate train --resume {tmp_path / 'run'}\n"
    )


def test_the_installed_command_runs() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("striate"), "describe", "lenet5", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["totals"]["parameters"] == 61_706


def test_help_needs_no_torch() -> None:
    program = "import sys; sys.argv = ['striate', '--help']\nfrom striate import cli\ntry:\n    cli.main()\nfinally:\n"
    program += "    print({'torch', 'numpy', 'matplotlib', 'lark'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "set()"


def test_notes_are_told_once(striate_: Any, bars_run: Any, bars_folder: Path, tmp_path: Path) -> None:
    two = shutil.copytree(bars_folder, tmp_path / "two")
    for part in ("train", "test"):
        shutil.rmtree(two / part / "lying")
    text = (bars_run.folder / "config.toml").read_text().splitlines()[0].removeprefix('network = "')
    words = ["train", text.rpartition(" ")[0], "--data", str(two), "--epochs", "1", "--no-report"]
    code, out, err = striate_(*words, "--weights", str(bars_run.folder), "--out", str(tmp_path / "run"))
    assert code == 0, err
    assert (out + err).count("fc1 starts anew: the classes of ") == 1


def test_a_long_text_is_no_name_of_a_file(striate_: Any) -> None:
    text = f"INPUT 1x4x4{' -> CONV1-2' * 40} -> FC 2"
    code, out, _ = striate_("trace", text, "--lr", "0.1", "--json")
    assert (code, json.loads(out)["learning_rate"]) == (0, 0.1)
    code, _, err = striate_("train", "--resume", "a" * 300)
    assert (code, err) == (1, NO_RUN.replace("nowhere", "a" * 300))


def test_the_learning_rate_has_a_short_name(striate_: Any, bars_folder: Path, tmp_path: Path) -> None:
    words = ["train", "INPUT -> FC", "--data", str(bars_folder), "--lr", "0.01", "--epochs", "1", "--no-report"]
    code, out, _ = striate_(*words, "--out", str(tmp_path / "run"), "--validation", "0.2", "--json")
    assert (code, json.loads(out)["judged_by"]) == (0, "validation")
    assert "learning_rate = 0.01" in (tmp_path / "run" / "config.toml").read_text()


def test_one_number_is_a_square_size(striate_: Any, bars_folder: Path, tmp_path: Path) -> None:
    words = ["train", "INPUT -> FC", "--data", str(bars_folder), "--size", "6", "--epochs", "1"]
    code, _, _ = striate_(*words, "--out", str(tmp_path / "run"))
    assert code == 0
    code, out, _ = striate_("predict", str(tmp_path / "run"), str(bars_folder / "test" / "lying" / "000.png"), "--json")
    assert (code, len(json.loads(out))) == (0, 1)
    assert "INPUT 1x6x6" in (tmp_path / "run" / "report.html").read_text()


def test_python_runs_the_package_as_torchrun_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "striate", "zoo", "lenet5", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["name"] == "lenet5"


def test_data_export_trace_and_sweep(striate_: Any, bars_run: Any, bars_folder: Path, tmp_path: Path) -> None:
    code, out, _ = striate_("data", str(bars_folder), "--json")
    assert (code, json.loads(out)["counts"]["train"]) == (0, {"crossed": 60, "lying": 60, "standing": 60})
    code, out, _ = striate_("data", str(bars_folder))
    assert (code, out.startswith("bars: 240 pictures, ")) == (0, True)
    code, out, _ = striate_("export", str(bars_run.folder), str(tmp_path / "bars.pt2"), "--json")
    assert (code, json.loads(out)["classes"], (tmp_path / "bars.pt2").is_file()) == (
        0, ["crossed", "lying", "standing"], True,
    )  # fmt: skip
    for source in (str(bars_run.folder), "INPUT 1x8x8 -> CONV 3x3x2 -> RELU -> POOL -> FC 3"):
        code, out, _ = striate_("trace", source, "--data", str(bars_folder), "--example", "3")
        assert (code, "of automatic differentiation." in out) == (0, True)
    code, out, err = striate_("trace", "INPUT 1x8x8 -> FC 3", "--data", str(bars_folder), "--example", "999")
    assert (code, out, err) == (2, "", "Error: example=999: bars has training examples 0 to 179.\n")
    words = ["INPUT -> FC", "learning_rate=0.01,0.1", "--data", str(bars_folder), "--epochs", "1", "--trials", "2"]
    code, out, _ = striate_("sweep", *words, "--out", str(tmp_path / "sweep"))
    assert (code, len(out.splitlines())) == (0, 6)
    code, out, err = striate_("sweep", "INPUT -> FC", "0.1", "--data", str(bars_folder))
    assert (code, err) == (2, "Error: 0.1: expected NAME=VALUES, as in learning_rate=1e-4..1e-1:log or N=1..3.\n")


def test_predictions_as_tables_from_standard_input_and_arrays(
    striate_: Any, bars_run: Any, bars_folder: Path, bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((bars_folder / "test" / "lying").iterdir())[:2]
    code, out, _ = striate_("predict", str(bars_run.folder), *map(str, files), "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["picture"] for row in rows] == [str(path) for path in files]
    expected = striate.predict(bars_run.folder, files)
    shares = [one.probabilities["standing"] for one in expected]
    assert [float(row["standing"]) for row in rows] == pytest.approx(shares)
    monkeypatch.setattr(data_verbs, "stdin", lambda: "\n".join(map(str, files)).encode())
    assert striate_("predict", str(bars_run.folder), "-", "--csv")[1] == out
    monkeypatch.setattr(data_verbs, "stdin", files[0].read_bytes)
    code, piped, _ = striate_("predict", str(bars_run.folder), "-", "--json")
    assert (code, json.loads(piped)[0]["probabilities"]) == (0, pytest.approx(expected[0].probabilities))
    numpy.save(tmp_path / "bars.npy", bars.test.inputs[:3].numpy())
    code, out, _ = striate_("predict", str(bars_run.folder), str(tmp_path / "bars.npy"), "--average", "flip", "--json")
    both = [striate.predict(bars_run.folder, x) for x in (bars.test.inputs[:3], bars.test.inputs[:3].flip(-1))]
    for found, one, two in zip(json.loads(out), *both, strict=True):
        mean = {name: (one.probabilities[name] + two.probabilities[name]) / 2 for name in one.probabilities}
        assert found["probabilities"] == pytest.approx(mean)
    pattern = str(bars_folder / "test" / "l*" / "*.png")
    assert len(json.loads(striate_("predict", str(bars_run.folder), pattern, "--json")[1])) == 20
    code, out, err = striate_("predict", str(bars_run.folder), "nothing*")
    assert (code, out, err) == (1, "", "Error: nothing*: no file matches this pattern.\n")


def test_masks_are_written_beside_predictions(striate_: Any, circles: Any, tmp_path: Path) -> None:
    run = striate.train("INPUT -> CONV", circles, out=tmp_path / "run", epochs=1, report=False)
    numpy.save(tmp_path / "circles.npy", circles.test.inputs[:2].numpy())
    words = ["predict", str(run.folder), str(tmp_path / "circles.npy"), "--masks", str(tmp_path / "masks")]
    code, out, _ = striate_(*words)
    assert (code, len(out.splitlines())) == (0, 4)
    expected = striate.predict(run.folder, circles.test.inputs[:2])
    for path, one in zip(sorted((tmp_path / "masks").iterdir()), expected, strict=True):
        assert one.mask is not None
        assert torch.equal(images.read_mask(path), one.mask)
    code, out, err = striate_("evaluate", str(run.folder))
    assert (code, out) == (2, "")
    assert err == "Error: the checkpoint does not say what it was trained on; name the data too.\n"


EVALUATION = """
Accuracy 75.00 %, top 2 100.00 % of 4 examples, loss 0.5000, calibration error 0.2750

class                support  precision  recall      f1
-------------------------------------------------------
cat                        2     0.6667  1.0000  0.8000
dog                        2     1.0000  0.5000  0.6667
cow                        0          –       –       –
-------------------------------------------------------
mean of the classes        4     0.8333  0.7500  0.7333

true \\ predicted  0  1  2
-------------------------
0 cat             2  0  0
1 dog             1  1  0
2 cow             0  0  0
"""


def test_an_evaluation_says_means_and_what_was_taken_for_what() -> None:
    """Counted by hand: three cats are said, of which two are right, and one dog."""
    said = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.6, 0.4, 0.0], [0.1, 0.9, 0.0]])
    found = Evaluation(("cat", "dog", "cow"), torch.tensor([0, 0, 1, 1]), said, 0.5)
    assert metrics.text(found, 2) == EVALUATION.strip()
    many = Evaluation(tuple(map(str, range(21))), torch.tensor([0]), torch.eye(21)[:1], 0.0)
    text = metrics.text(many)
    assert text.startswith("Accuracy 100.00 %, top 5 100.00 % of 1 examples")
    assert "predicted" not in text


def test_help_names_the_values_of_options() -> None:
    fields = Options.model_fields
    found = {name: data_verbs._values(name, fields[name].annotation) for name in fields}
    assert found["optimizer"] == "adamw|momentum|sgd"
    assert (found["batch_size"], found["learning_rate"], found["class_weights"]) == (
        "N|full",
        "X|find",
        "none|balanced|X,…",
    )
    assert (found["size"], found["log"], found["weights"], found["ema"]) == ("N|HxW", "csv|tensorboard,…", "TEXT", "X")


def test_progress_is_told_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 31.0, 31.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    log = commands._Log(Console(stderr=True))
    for done in (1, 2, 3):
        log.tick(done, 4000, "epoch 1 of 2")
    assert capsys.readouterr().err == "epoch 1 of 2: 2 of 4,000\n"


def test_a_long_table_of_predictions_has_one_headline() -> None:
    one = Prediction("a.png", "cat", 0.75, {"cat": 0.75, "dog": 0.25})
    lines = list(data_verbs._lines(iter([one] * 205), ("cat", "dog"), 3, "text"))
    assert lines[0].split() == ["file", "class", "probability", "then"]
    assert lines[2:] == [lines[2]] * 205
    assert lines[2].split() == ["a.png", "cat", "75.0", "%", "dog", "25.0", "%"]


def test_figures_name_the_part_and_files_left_out_are_named(striate_: Any, bars_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "bars"
    shutil.copytree(bars_folder, root)
    broken = root / "train" / "lying" / "000.png"
    broken.write_bytes(b"no picture")
    words = ["--data", str(root), "--epochs", "1", "--skip-bad", "--validation", "0.1", "--out", str(tmp_path / "run")]
    code, _, err = striate_("train", "INPUT -> FC", *words)
    assert code == 0
    assert [words in err for words in ("validation loss ", "validation accuracy ", "test loss")] == [True, True, False]
    left = [line for line in err.splitlines() if line.startswith("Left out: ")]
    assert (len(left), left[0].startswith(f"Left out: {broken}: no reader of ")) == (1, True)
    code, out, err = striate_("evaluate", str(tmp_path / "run"), "--top-k", "2", "--json")
    assert (code, "top_2" in json.loads(out), err.splitlines()) == (0, True, left)
    code, out, err = striate_("predict", str(tmp_path / "run"), str(broken.parent), "--skip-bad", "--json")
    assert (code, len(json.loads(out)), err.splitlines()) == (0, 59, left)
    for number in range(1, 25):
        (broken.parent / f"x{number}.png").write_bytes(b"no picture")
    err = striate_("predict", str(tmp_path / "run"), str(broken.parent), "--skip-bad", "--csv")[2]
    assert (len(err.splitlines()), err.splitlines()[-1]) == (21, "Left out: 5 more files.")
    numpy.save(tmp_path / "zeros.npy", numpy.zeros((1, 1, 8, 8), numpy.uint8))
    files = [str(path) for path in (broken.parent / "003.png", tmp_path / "zeros.npy", broken)]
    code, out, err = striate_("predict", str(tmp_path / "run"), *files)
    hint = "Such files are left out by --skip-bad on the command line, skip_bad=True in Python."
    assert (code, len(out.splitlines()), err) == (1, 4, f"Error: {left[0].removeprefix('Left out: ')} {hint}\n")
