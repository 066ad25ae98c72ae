"""The benchmark: its layers, its peers, its gate and its reports. Nothing here asserts a time."""

from __future__ import annotations

import gc
import json
import os
import sys
from math import inf, isclose
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import benchmark, cli
from striate.benchmark import contest, jax_ways, machine, page, peers, results, truth
from striate.benchmark.suite import SUITE, Case
from striate.computing import ALGORITHMS, Base, Problem, find
from striate.computing.im2col import Im2col
from striate.errors import OptionError, WrongResultError
from striate.machine import Ceilings, Level

BOUNDS = Ceilings({"float32": 1e11}, (Level("L1", 32768, 1e11), Level("DRAM", 2**62, 1e10)))
BRIEF = contest.Effort(rounds=1, seconds=0.0)


def layer(name: str, kind: str, shape: tuple[int, ...], outputs: int, kernel: tuple[int, ...], **options: Any) -> Case:
    first, period = options.pop("first", False), options.pop("period", ())
    return Case(name, "tiny", f"A tiny {name}", kind, shape, outputs, kernel, tuple(options.items()), period, first)


TINY = [
    layer("dense", "conv", (3, 4, 7, 6), 5, (3, 3), padding=1),
    layer("first", "conv", (2, 3, 9, 9), 4, (3, 3), stride=2, padding=1, first=True),
    layer("grouped", "conv", (3, 18, 6, 6), 36, (3, 3), padding=1, groups=9),
    layer("depthwise", "conv", (2, 9, 20), 9, (5,), padding=4, dilation=2, groups=9),
    layer("volume", "conv", (1, 4, 4, 5, 6), 4, (3, 1, 3), padding=(1, 0, 1), groups=4),
    layer("up", "conv_transpose", (3, 4, 4, 5), 3, (4, 4), stride=2, padding=1),
    layer("up-depthwise", "conv_transpose", (1, 8, 4, 5), 8, (4, 4), stride=2, padding=1, groups=8),
    layer("local", "conv_local", (3, 4, 6, 5), 2, (3, 3), padding=1),
    layer("local-strided", "conv_local", (1, 2, 7, 9), 3, (3, 2), stride=2),
    layer("local-1d", "conv_local", (2, 3, 9), 4, (3,)),
    layer("tiled", "conv_tiled", (3, 4, 6, 4), 5, (3, 3), padding=1, period=(2, 2)),
    layer("tiled-uneven", "conv_tiled", (2, 3, 8, 8), 4, (4, 4), padding=((2, 1), (2, 1)), period=(2, 4)),
    layer("tiled-1d", "conv_tiled", (2, 3, 9), 4, (2,), stride=2, period=(2,)),
    layer("max", "max_pool", (3, 9, 8, 8), 9, (3, 3), stride=2, padding=1),
    layer("max-3d", "max_pool", (1, 3, 4, 4, 4), 3, (2, 2, 2), stride=2),
    layer("mean", "avg_pool", (2, 3, 7, 7), 3, (3, 3), stride=1, padding=1),
    layer("global", "avg_pool", (2, 3, 5, 5), 3, (5, 5), stride=1),
    layer("norm", "lp_pool", (2, 3, 6, 6), 3, (2, 2), stride=2),
]  # fmt: skip
tiny = pytest.mark.parametrize("case", TINY, ids=[case.name for case in TINY])
CASES = {case.name: case for case in TINY}


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> dict[str, Case]:
    """A suite of two tiny layers in the place of the published ones."""
    monkeypatch.setattr(benchmark.suite, "SUITE", {name: CASES[name] for name in ("depthwise", "max")})
    monkeypatch.setattr(benchmark, "ceilings", lambda threads, dtype, clock: BOUNDS)
    return benchmark.suite.SUITE


# ------------------------------------------------------------------------------------------------------------ the suite


def test_the_suite_is_published_layers_of_every_family() -> None:
    assert 90 <= len(SUITE) <= 120
    assert 15 <= sum(case.quick for case in SUITE.values()) <= 25
    assert {case.family for case in SUITE.values() if case.quick} | {"stem"} == {c.family for c in SUITE.values()}
    assert len({case.source for case in SUITE.values()}) == len(SUITE)
    for case in SUITE.values():
        assert min(case.output_shape) >= 1
        assert case.pooling or case.multiply_adds > 0
        assert all(n % t == 0 for n, t in zip(case.output_shape[2:], case.period, strict=bool(case.period)))


def test_a_table_of_layers_is_read_as_it_is_written() -> None:
    case = SUITE["slak-dw51x5"]
    assert (case.shape, case.outputs, case.kernel) == ((1, 124, 56, 56), 124, (51, 5))
    assert dict(case.options) == {"padding": (25, 2), "groups": 124}
    assert dict(SUITE["tiled-cifar"].options) == {"padding": ((4, 3), (4, 3))}
    assert (SUITE["tiled-cifar"].period, SUITE["tiled-cifar"].first) == ((2, 2), True)
    assert SUITE["vgg16-conv5"].multiply_adds == 512 * 512 * (3 * 14 - 2) ** 2  # 40 of the 42 taps a line are real
    assert SUITE["deepface-l6"].weight_shape == (21, 21, 16, 16, 5, 5)


def test_kinds_say_whose_weight_gradients_count() -> None:
    assert {name: SUITE[name].kinds for name in ("quartznet-dw33", "resnext50-conv2", "x3d-dw-res2", "vgg16-stem")} == {
        "quartznet-dw33": {"1-D", "depthwise"},
        "resnext50-conv2": {"grouped"},
        "x3d-dw-res2": {"3-D", "depthwise"},
        "vgg16-stem": frozenset(),
    }
    assert SUITE["local-1d"].kinds == {"local", "1-D"}
    assert SUITE["max-c3d-pool2"].measurements == ("forward", "input_gradient", "step")


def test_layers_are_selected_by_name_and_family() -> None:
    assert {case.family for case in benchmark.selected("^local$")} == {"local"}
    assert [case.name for case in benchmark.selected("DCGAN", quick=True)] == ["dcgan-up"]
    with pytest.raises(OptionError) as caught:
        benchmark.selected("(")
    assert str(caught.value) == (
        "--only (: not a regular expression (missing ), unterminated subpattern at position 0)."
    )  # fmt: skip
    with pytest.raises(OptionError) as caught:
        benchmark.selected("transformer")
    assert str(caught.value) == (
        f"--only transformer: finds none of the {len(SUITE)} layers; their families are dense 3x3, dense 1x1, stem, "
        "grouped, depthwise, dilated, transposed, 1-D, 3-D, local, tiled, large dense, LeNet, pooling."
    )


def test_a_name_is_taken_once() -> None:
    with pytest.raises(OptionError) as caught:
        benchmark.register(SUITE["deepface-l6"])
    assert str(caught.value) == "A layer called 'deepface-l6' is already in the suite: DeepFace, L6, 5x5."


# --------------------------------------------------------------------------------------------------- peers and the gate


@tiny
def test_the_truth_of_a_few_is_the_truth_of_all(case: Case) -> None:
    """Against every example and channel computed in float64 at once."""
    whole = truth.operands(case, torch.float32)
    wide = peers.Operands(
        whole.x.double(), None if whole.weight is None else whole.weight.double(), whole.gradient.double()
    )
    way = peers.torch_ways(case, wide)[0]
    found = truth.truth(case, torch.float32)
    assert tuple(found) == case.measurements[:-1]
    for direction, true in found.items():
        expected = way.canonical(direction, way.action(direction)())
        torch.testing.assert_close(true, expected, rtol=1e-10, atol=1e-12)


@tiny
def test_every_contender_computes_the_case(case: Case) -> None:
    true, given = truth.truth(case, torch.float32), truth.operands(case, torch.float32)
    entries: list[Any] = [*peers.striate(case, given), *peers.torch_ways(case, given)]
    entries += jax_ways.jax_ways(case, given)
    assert len({entry.name for entry in entries}) == len(entries) >= 4
    for entry in entries:
        off = {direction: truth.error(entry, direction, expected) for direction, expected in true.items()}
        assert max(off.values()) < 1e-5, (entry.name, off)
        entry.action("step")()


def test_striate_keeps_the_layout_that_it_is_given() -> None:
    case = CASES["dense"]
    way = peers.striate(case, truth.operands(case))[1]
    assert way.operands[0].is_contiguous(memory_format=torch.channels_last)
    assert way.gradient.is_contiguous(memory_format=torch.channels_last)
    line = CASES["depthwise"]
    assert peers.striate(line, truth.operands(line))[1].operands[0].stride() == (180, 1, 9)


def test_the_input_of_a_first_layer_needs_no_gradient() -> None:
    for name, gradients in (("first", 1), ("dense", 2), ("max", 1)):
        case = CASES[name]
        assert len(peers.striate(case, truth.operands(case))[0].action("step")()) == gradients


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_contenders_share_no_memory() -> None:
    case = CASES["depthwise"]
    given = truth.operands(case, torch.float32)
    ways = [*peers.striate(case, given), *peers.torch_ways(case, given)]
    addresses = [t.data_ptr() for way in ways for t in (*way.operands, way.gradient)]
    assert len(set(addresses)) == len(addresses) == 3 * len(ways)


def test_a_way_can_be_compiled() -> None:
    case = CASES["grouped"]
    way = peers.torch_ways(case, truth.operands(case))[0].compiled()
    assert way.name == "torch NCHW, compiled"
    assert way.layer is not peers.torch_ways(case, truth.operands(case))[0].layer


def test_the_gate_passes_and_tells_errors_and_algorithms() -> None:
    said: list[str] = []
    found = truth.gate(TINY[:2], torch.float32, lambda done, total, what: said.append(f"{done}/{total} {what}"))
    assert said == ["0/2 checking dense", "1/2 checking first"]
    entry = found["dense"]["weight_gradient"]
    assert (entry["algorithm"], entry["exact"]) == ("vendor", True)
    assert entry["planned"] == dict.fromkeys(peers.STRIATE, "vendor")
    assert max(entry["striate"].values()) < 1e-5


def test_a_red_gate_shows_no_speed(
    suite: dict[str, Case], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A wrong computation is injected: its output is right, its gradient of the weights is off by a thousandth."""

    def planned(x: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.nn.functional.conv1d(x, 1.001 * weight - 0.001 * weight.detach(), **options)

    monkeypatch.setitem(peers.STRIATE_LAYERS, "conv", planned)
    table = tmp_path / "numbers.json"
    monkeypatch.setattr(sys, "argv", ["striate", "bench", "--rounds", "1", "--rigor", "estimate", "--json", str(table)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out, table.exists()) == (1, "", False)
    first, *lines = err.splitlines()
    assert first == "Error: No speed is measured, because results are wrong."
    assert len(lines) == 2
    assert lines[0].startswith("  depthwise, weight gradient, striate NCHW: off by ")
    assert lines[1].startswith("  depthwise, weight gradient, striate channels-last: off by ")
    assert lines[0].endswith("(planned: vendor)")


def test_a_red_gate_names_the_plan_of_the_layout_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Base):
        """Serves where channels come last, and there it is planned and wrong."""

        def refuses(self, problem: Problem) -> str | None:
            return None if problem.layout == "channels_last" else "channels come first."

        def estimate(self, problem: Problem) -> int:
            return 1

        def run(self, first: torch.Tensor, second: torch.Tensor | None, problem: Problem) -> torch.Tensor:
            return 2 * find("convolution", "im2col").run(first, second, problem)

    class Refusing(Base):
        def refuses(self, problem: Problem) -> str | None:
            return "channels come last." if problem.layout == "channels_last" else None

        def run(self, first: torch.Tensor, second: torch.Tensor | None, problem: Problem) -> torch.Tensor:
            return find("convolution", "im2col").run(first, second, problem)

    monkeypatch.setitem(ALGORITHMS, "convolution", {"vendor": Refusing(), "im2col": Im2col(), "late": Late()})
    with pytest.raises(WrongResultError) as caught:
        truth.gate([CASES["dense"]], torch.float32)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 3
    assert all("striate channels-last" in line and line.endswith("(planned: late)") for line in lines)


def test_a_value_that_is_no_number_is_infinitely_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.STRIATE_LAYERS, "max_pool", lambda x, kernel, **options: x[..., ::2, ::2] * torch.nan)
    case = CASES["max"]
    way = peers.striate(case, truth.operands(case))[0]
    assert truth.error(way, "forward", truth.truth(case, torch.float32)["forward"]) == inf
    with pytest.raises(WrongResultError, match="max, forward, striate NCHW: off by inf"):
        truth.gate([case], torch.float32)


# ---------------------------------------------------------------------------------------------------------- the contest


def test_contenders_take_turns_and_the_hopeless_are_left_out() -> None:
    order: list[str] = []
    clock = [0.0]

    def contender(name: str, seconds: float) -> Any:
        def act() -> None:
            order.append(name)
            clock[0] += seconds

        return act

    actions = {"a": contender("a", 0.01), "b": contender("b", 0.03), "c": contender("c", 0.9), "d": contender("d", 9.0)}
    effort = contest.Effort(rounds=3, seconds=0.0, clock=lambda: clock[0])
    times = contest.seconds_by_round(actions, dict(a="ours", b="theirs", c="theirs", d="theirs"), effort)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 1, "d": 1}
    assert {name: round(min(seconds), 6) for name, seconds in times.items()} == dict(a=0.01, b=0.03, c=0.9, d=9.0)
    assert "".join(order) == "aaabbbccc" + "d" + "ababab"


def test_a_short_call_is_repeated_within_a_sample() -> None:
    clock, calls = [0.0], [0]

    def act() -> None:
        clock[0] += 0.0005
        calls[0] += 1

    times = contest.seconds_by_round({"a": act}, {"a": "ours"}, contest.Effort(1, 0.0, lambda: clock[0]))
    assert isclose(times["a"][0], 0.0005)
    assert calls[0] == 3 + 4  # warming up, then a sample of two milliseconds


def test_ratios_are_those_within_rounds() -> None:
    assert contest.ratio([2.0, 30.0, 6.0], [1.0, 10.0, 2.0]) == 3.0
    assert contest.ratio([8.0], [4.0, 1.0, 2.0]) == 8.0


def test_limits_name_what_binds() -> None:
    case = CASES["dense"]
    real = 4 * 5 * 3 * (3 * 7 - 2) * (3 * 6 - 2)
    size = 4 * (3 * 4 * 42 + 3 * 5 * 42 + 5 * 4 * 9)
    slow, fast = Ceilings({"float32": 1e3}, BOUNDS.levels), BOUNDS
    assert (case.multiply_adds, 4 * case.numbers) == (real, size)
    arithmetic = contest.limits(case, "forward", slow, torch.float32, 1.0)
    assert arithmetic == {"seconds": 2 * real / 1e3, "binds": "arithmetic", "reached": 2 * real / 1e3}
    step = contest.limits(case, "step", slow, torch.float32, 1.0)
    assert isclose(step["seconds"], 3 * arithmetic["seconds"])
    assert contest.limits(CASES["first"], "step", slow, torch.float32, 1.0)["binds"] == "arithmetic"
    assert contest.limits(CASES["max"], "forward", fast, torch.float32, 1.0)["binds"] == "L1"
    assert fast.limit(torch.float32, 0, 10**6) == (1e-4, "DRAM")


def test_the_peak_of_memory_counts_what_is_held_together() -> None:
    def act() -> torch.Tensor:
        a = torch.ones(1000)
        b = a + a
        del a
        return b * 2

    held = contest.peak(act)
    assert held is not None
    assert 2 * 4000 <= held < 2 * 4000 + 100  # and the number that b is multiplied by


# ---------------------------------------------------------------------------------------------------------- the machine


def test_the_machine_is_measured_and_described() -> None:
    bounds = machine.ceilings(1, torch.float32)
    assert [level.name for level in bounds.levels] == ["L1", "L2", "L3", "DRAM"]
    assert bounds.operations["float32"] > 1e8
    assert all(level.bandwidth > 1e6 for level in bounds.levels)
    told = machine.describe(1)
    assert (told["threads"], told["torch"]) == (1, torch.__version__)
    assert told["processor"]


def test_a_quiet_place_leaves_everything_as_it_was() -> None:
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with machine.quiet(1):
        assert (torch.get_num_threads(), len(os.sched_getaffinity(0)), gc.isenabled()) == (1, 1, False)
    assert (torch.get_num_threads(), os.sched_getaffinity(0), gc.isenabled()) == (threads, cores, True)


# ---------------------------------------------------------------------------------------------------------- the reports


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "ceilings", lambda threads, dtype, clock: BOUNDS)
        names = ("depthwise", "first", "max", "local")
        return benchmark.run([CASES[name] for name in names], effort=BRIEF)


def test_a_run_is_plain_values(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    (one,) = result["runs"]
    assert [row["name"] for row in one["cases"]] == ["depthwise", "first", "max", "local"]
    row = one["cases"][0]
    assert tuple(row["measurements"]) == benchmark.MEASUREMENTS
    assert row["algorithms"] == dict.fromkeys(("forward", "input_gradient", "weight_gradient"), "vendor")
    found = row["measurements"]["forward"]
    assert {"striate NCHW", "striate channels-last", "torch NCHW", "torch channels-last"} <= set(found["seconds"])
    assert found["limit"]["binds"] == "arithmetic"  # 2 * 9 * 92 * 2 operations against 3060 bytes
    assert set(found["error"]) == {"striate", "torch"}
    assert row["memory"]["torch"] > 0


def fake(
    ratios: dict[str, float], *, name: str = "a", kinds: tuple[str, ...] = (), memory: int = 100
) -> dict[str, Any]:
    """A row with these ratios and nothing that is measured."""
    best = {"striate": "striate NCHW", "torch": "torch NCHW"}
    limit = {"reached": 0.5, "binds": "L2", "seconds": 1.0}
    found = {k: {"ratio": v, "ratio_default": 2 * v, "best": best, "limit": limit} for k, v in ratios.items()}
    return {
        "name": name, "family": "tiny", "source": f"Layer {name}", "kinds": list(kinds), "first": False,
        "shape": [1, 2], "algorithms": {"forward": "vendor"}, "memory": {"striate": memory, "torch": 100},
        "measurements": found,
    }  # fmt: skip


def test_the_gradient_of_a_first_layer_s_input_is_in_no_mean() -> None:
    first = {**fake({"input_gradient": 16.0, "weight_gradient": 4.0}), "first": True}
    backward = results.summary([first, fake({"input_gradient": 1.0}, name="b")])["means"]["backward"]
    assert (round(backward["ratio"], 6), backward["count"]) == (2.0, 2)


def test_the_summary_counts_what_loses() -> None:
    rows = [
        fake({"forward": 4.0, "weight_gradient": 8.0, "step": 2.0}, kinds=("depthwise",)),
        fake({"forward": 0.25, "input_gradient": 2.0, "step": 0.5}, name="b", memory=120),
    ]
    found = results.summary(rows)
    means = {title: round(mean["ratio"], 6) for title, mean in found["means"].items()}
    assert means == {
        "forward": 1.0,
        "backward": 4.0,
        "forward and backward": 1.0,
        "weight gradients of depthwise, grouped, local, tiled, 1-D and 3-D": 8.0,
        "weight gradients, depthwise": 8.0,
        "step, tiny": 1.0,
    }
    assert [(entry["name"], entry["measurement"]) for entry in found["lost"]] == [("b", "forward"), ("b", "step")]
    assert (found["lost_steps"], found["measurements"]) == (1, 6)
    assert found["memory"] == [{"name": "b", "striate": 120, "torch": 100}]
    words = results.summary_lines(found)
    assert words[-3] == "under 0.95: 2 of 6 measurements, 1 of them steps"
    assert words[-1] == "peak memory over 1.1x of torch's: b 1.2x"


def test_the_table_has_a_line_for_every_layer(result: dict[str, Any]) -> None:
    lines = results.text(result).splitlines()
    rows = {line.split()[0]: line for line in lines if line.startswith("  ") and line.endswith(("vendor", "im2col"))}
    assert set(rows) == {"depthwise", "first", "max", "local"}
    assert " - " in rows["max"]
    assert " - " not in rows["local"]


def test_the_page_and_its_picture(result: dict[str, Any], tmp_path: Path) -> None:
    benchmark.write(result, tmp_path / "docs" / "performance.md")
    text = (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "images" / "performance.png").read_bytes().startswith(b"\x89PNG")
    assert "![Ratios of every layer](images/performance.png)" in text
    assert "### What loses, one thread" in text
    assert all(f"| A tiny {name}" in text for name in ("depthwise", "first (first)", "max", "local"))


def test_notes_by_hand_stay_when_the_page_is_measured_again(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    benchmark.write(result, path)
    measured = path.read_text(encoding="utf-8")
    path.write_text(f"{measured}\n{page.NOTES}\n\n## Why\n", encoding="utf-8")
    for _ in range(2):
        benchmark.write(result, path)
        assert path.read_text(encoding="utf-8") == f"{measured}\n{page.NOTES}\n\n## Why\n"


def test_the_page_lists_what_loses(result: dict[str, Any]) -> None:
    rows = [fake({"forward": 0.5}, memory=200), fake({"forward": 2.0}, name="b")]
    lost = {**result["runs"][0], "cases": rows, "summary": results.summary(rows)}
    text = page.markdown({**result, "runs": [lost]})
    assert "1 of 2 measurements are under 0.95." in text
    assert "| Layer a | forward | 0.50 | torch NCHW | striate NCHW | vendor | L2 | 50 % |" in text
    assert "over 1.1 times that of PyTorch's own: Layer a (0.0 against 0.0 MB)." in text


def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["striate", "bench", *words, "--rigor", "estimate"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_the_command_writes_what_it_is_asked_for(
    suite: dict[str, Case], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--directions", "forward,step", "--rounds", "1", "--shared", "--only", "max|depth"]
    files = ["--json", str(tmp_path / "a.json"), "--write", str(tmp_path / "a.md")]
    code, out, err = bench(monkeypatch, capsys, *words, *files)
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (code, err, out) == (0, "", results.text(found) + "\n")
    assert found["options"]["clock"] == "process_time"
    assert [list(row["measurements"]) for row in found["runs"][0]["cases"]] == [["forward", "step"]] * 2
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == page.markdown(found)


WRONG = [
    (["--dtype", "int8"], "--dtype int8: expected one of float32, bfloat16, float64."),
    (["--threads", "none"], "--threads none: expected 1, all, both, or a number above 0."),
    (
        ["--shared", "--threads", "2"],
        "--shared --threads 2: processor time is that of one thread; leave one of them out.",
    ),
    (
        ["--directions", "sideways"],
        "--directions sideways: expected some of forward, input_gradient, weight_gradient, step, joined by commas.",
    ),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_options_are_explained(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, capsys, *words) == (2, "", f"Error: {message}\n")
