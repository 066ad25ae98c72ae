"""The command line: one verb for each thing that a person does. Heavy parts load when a verb runs."""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from . import data_verbs  # noqa: F401  (its verbs join these)
from .commands import AsJson, app, numbers, one_network, progress_bar, show_values, verb, with_values
from .errors import AlgorithmError, GeometryError, OptionError


@verb('striate describe "INPUT 3x32x32 -> [CONV3-16 -> RELU -> POOL]*N -> FC 10" N=1..3')
def describe(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK... [NAME=VALUE...]",
            help="Network texts, zoo names or files; several are compared. NAME=VALUE binds a name that a text uses; "
            "N=1..3 or N=1,2,4 tries several values.",
        ),
    ],
    input: Annotated[str | None, typer.Option(help="Shape of an example, as 3x224x224.")] = None,
    filters: Annotated[int | None, typer.Option(help="Of every CONV that the text leaves open.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Features of every FC left open, but the last.")] = None,
    classes: Annotated[int | None, typer.Option(help="Features of the last FC, if it is left open.")] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also the least time on this machine, and who computes.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Every column that there is.")] = False,
    csv: Annotated[str | None, typer.Option(help="Write the table to this file as CSV.")] = None,
    html: Annotated[str | None, typer.Option(help="Write the table to this file as a page.")] = None,
    picture: Annotated[str | None, typer.Option(help="Draw the network to this file: PNG or SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a network's exact table: shapes, parameters, multiply-adds, memory, receptive fields."""
    from . import files
    from .comparison import compare, sweep
    from .inspection import describe as table

    sources, values = with_values(networks)
    if not sources:
        raise OptionError("describe needs a network: a text, a zoo name or a file.")
    size = numbers("--input", input, "3x224x224")
    values |= _options(values, filters=filters, hidden=hidden, classes=classes)
    found: Any
    if len(sources) == 1 and all(len(choices) == 1 for choices in values.values()):
        found = table(sources[0], size, time=time, **{name: choices[0] for name, choices in values.items()})
    elif time or picture:
        raise OptionError("--time and --picture are for one network with one value for each name.")
    elif len(sources) == 1:
        found = sweep(sources[0], values, size)
    else:
        chosen = {name: choices[0] for name, choices in values.items()}
        if many := next((name for name, choices in values.items() if len(choices) > 1), None):
            raise OptionError(f"{many} has several values; that is for one network, not for {len(sources)}.")
        found = compare(_described(sources, size, chosen))
    if csv:
        files.write(Path(csv), found.csv().encode())
    if html:
        named = len(sources) == 1 and hasattr(found, "rows") and len(sources[0]) <= 60
        files.write(Path(html), (found.page(sources[0]) if named else found.page()).encode())
    if picture:
        _draw(found, picture, sources[0])
    one = len(sources) == 1 and hasattr(found, "rows")
    show_values(found.to_dict(), found.text(wide=wide) if one else str(found), as_json)


@verb("striate check resnet50 --object-size 64")
def check(
    network: Annotated[str, typer.Argument(help="A network text, the name of a zoo network, or a file with a text.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE...]", help="Numbers for the names that the text uses.")
    ] = None,
    input: Annotated[str | None, typer.Option(help="Shape of an example, as 3x224x224.")] = None,
    object_size: Annotated[str | None, typer.Option(help="Size of the objects to be seen, as 64 or 64x48.")] = None,
    filters: Annotated[int | None, typer.Option(help="Of every CONV that the text leaves open.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Features of every FC left open, but the last.")] = None,
    classes: Annotated[int | None, typer.Option(help="Features of the last FC, if it is left open.")] = None,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0, for code hosts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for mistakes of design: lost pixels, gaps, shifts, wasted layers; each with numbers and a fix."""
    from importlib.metadata import version

    from . import findings, lint
    from .inspection import check as look

    bound = one_network("check", network, values)
    bound |= _options(bound, filters=filters, hidden=hidden, classes=classes)
    seen = numbers("--object-size", object_size, "64 or 64x48", 1)
    found = look(
        network,
        numbers("--input", input, "3x224x224"),
        object_size=seen[0] if seen is not None and len(seen) == 1 else seen,
        **{name: choices[0] for name, choices in bound.items()},
    )
    path = lint.path_of(network)
    values_shown = findings.sarif(found, path, version("striate")) if sarif else [one.to_dict() for one in found]
    show_values(values_shown, findings.text(found, path), as_json or sarif)
    raise typer.Exit(findings.exit_code(found))


def _described(sources: list[str], size: tuple[int, ...] | None, values: dict[str, Any]) -> dict[str, Any]:
    """Several networks by their names; texts are numbered."""
    from . import zoo
    from .inspection import describe as table

    named = [
        source if source in zoo.names() or len(source) <= 40 else f"text {n}" for n, source in enumerate(sources, 1)
    ]
    doubled = {name for name in named if named.count(name) > 1}
    names = [f"{name} ({number})" if name in doubled else name for number, name in enumerate(named, 1)]
    return {name: table(source, size, **values) for name, source in zip(names, sources, strict=True)}


def _draw(found: Any, picture: str, title: str) -> None:
    from . import diagrams, files
    from .rendering import to_png, to_svg

    path = Path(picture)
    if path.suffix.lower() not in (".png", ".svg"):
        raise OptionError(f"--picture {picture}: expected a name that ends in .png or .svg.")
    figure = diagrams.network(found, title if len(title) <= 40 else "")
    files.write(path, to_png(figure) if path.suffix.lower() == ".png" else to_svg(figure).encode())


def _options(values: dict[str, list[Any]], **options: Any) -> dict[str, list[Any]]:
    """Options that say the same as NAME=VALUE, each given once."""
    given = {name: [value] for name, value in options.items() if value is not None}
    if twice := next((name for name in given if name in values), None):
        raise OptionError(f"{twice} is given twice: as --{twice} and as {twice}={values[twice][0]}.")
    return given


@verb("striate plan 8x64x56x56 128x64x3x3 --padding same")
def plan(
    x: Annotated[
        str | None, typer.Argument(help="Shape of the input, examples x channels x sizes: 8x64x56x56.")
    ] = None,
    weight: Annotated[
        str | None, typer.Argument(help="Shape of the weights: 128x64x3x3; periods of a tiled layer in front.")
    ] = None,
    stride: Annotated[str, typer.Option(help="One number, or one per axis as 2x1.")] = "1",
    padding: Annotated[str, typer.Option(help="One number, one (or before:after) per axis, or a word.")] = "0",
    dilation: Annotated[str, typer.Option(help="One number, or one per axis.")] = "1",
    groups: Annotated[int, typer.Option(help="Blocks of channels that do not mix.")] = 1,
    transposed: Annotated[bool, typer.Option("--transposed", help="Plan the transposed convolution.")] = False,
    output_padding: Annotated[str, typer.Option(help="Transposed only: positions added at the end.")] = "0",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64 or complex64.")] = "float32",
    layout: Annotated[str, typer.Option(help="Of the input: channels_first or channels_last.")] = "channels_first",
    algorithm: Annotated[str | None, typer.Option(help="Ask for one by name.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time the candidates now, and keep the result.")] = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure what this machine can do at best.")] = False,
    merge: Annotated[list[str] | None, typer.Option(help="Add the measurements of this file to one's own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print who computes a convolution and its two gradients, how long each takes, and who refuses why."""
    import torch

    from . import machine, wisdom
    from .computing import DIRECTIONS
    from .planning import plan as make
    from .policy import tuning

    if merge:
        show_values({"merged": (added := wisdom.merge(merge))}, f"{added} new measurements", as_json)
    if calibrate:
        found = machine.calibrate()
        rates = {**found.operations, "bandwidth": found.levels[-1].bandwidth}
        words = [f"{name:9} {n / 1e9:7.1f} G{'B' if name == 'bandwidth' else 'FLOP'}/s" for name, n in rates.items()]
        show_values(rates, "\n".join(words), as_json)
    if x is None or weight is None:
        if merge or calibrate:
            return
        raise OptionError("plan: give the shapes of input and weights, as in striate plan 8x64x56x56 128x64x3x3.")
    types = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64", "complex64")}
    if dtype not in types:
        raise OptionError(f"--dtype {dtype}: expected one of {', '.join(types)}.")
    shapes = (numbers("X", x, "8x64x56x56", 3) or (), numbers("WEIGHT", weight, "128x64x3x3", 3) or ())
    options: dict[str, Any] = dict(
        stride=_per_axis("--stride", stride, "2x1"),
        padding=padding if padding.isalpha() or "_" in padding else _per_axis("--padding", padding, "1x2 or same"),
        dilation=_per_axis("--dilation", dilation, "2x1"),
        output_padding=_per_axis("--output-padding", output_padding, "1x0"),
        groups=groups, transposed=transposed, dtype=types[dtype], layout=layout, algorithm=algorithm,
    )  # fmt: skip
    try:
        with tuning("measure") if measure else nullcontext():
            plans = [make(*shapes, **options, direction=direction) for direction in DIRECTIONS]
    except (GeometryError, AlgorithmError) as error:
        raise OptionError(f"plan {x} {weight}: {error}") from None
    show_values([p.to_dict() for p in plans], "\n\n".join(map(str, plans)), as_json)


@verb("striate bench --quick")
def bench(
    only: Annotated[str | None, typer.Option(help="Only layers whose name or family this pattern finds.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few layers, briefly: about a minute.")] = False,
    threads: Annotated[str, typer.Option(help="1, all, both, or a number.")] = "1",
    directions: Annotated[
        str | None, typer.Option(help="Some of forward,input_gradient,weight_gradient,step.  [all]")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float64.")] = "float32",
    rounds: Annotated[int | None, typer.Option(min=1, help="Turns of every contender.  [7, quick 5]")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Count processor time: others use the machine too.")] = False,
    rigor: Annotated[str, typer.Option(help="How plans are made: estimate, measure or frozen.")] = "measure",
    compiled: Annotated[bool, typer.Option("--compiled", help="Let torch.compile take part; slow.")] = False,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all numbers into this file.")] = None,
    page: Annotated[str | None, typer.Option("--write", help="Write a Markdown page with a picture here.")] = None,
) -> None:
    """Measure published layers against the best of PyTorch's ways; nothing if a result is wrong."""
    import torch

    from . import benchmark, files
    from .policy import tuning

    types = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float64")}
    if dtype not in types:
        raise OptionError(f"--dtype {dtype}: expected one of {', '.join(types)}.")
    counts = _threads(threads)
    if shared and counts != (1,):
        raise OptionError(f"--shared --threads {threads}: processor time is that of one thread; leave one of them out.")
    effort = benchmark.QUICK if quick else benchmark.Effort()
    clock = time.process_time if shared else time.perf_counter
    with progress_bar() as (bar, _), tuning(rigor, budget=3600):
        found = benchmark.run(
            benchmark.selected(only, quick=quick),
            threads=counts,
            measurements=directions.split(",") if directions else benchmark.MEASUREMENTS,
            dtype=types[dtype], compiled=compiled, progress=bar,
            effort=benchmark.Effort(rounds or effort.rounds, effort.seconds, clock),
        )  # fmt: skip
    if json_file:
        files.write(Path(json_file), (json.dumps(found, indent=1) + "\n").encode())
    if page:
        benchmark.write(found, Path(page))
    typer.echo(benchmark.text(found))


@verb("striate zoo lenet5")
def zoo(
    name: Annotated[str | None, typer.Argument(help="Print the text of this network.")] = None, as_json: AsJson = False
) -> None:
    """List the published networks, or print the text of one."""
    from . import zoo as networks
    from .analysis import describe as table

    if name is not None:
        written = networks.text(name)
        show_values({"name": name, "text": written}, written.rstrip(), as_json)
        return
    found = {known: table(known) for known in networks.names()}
    width = max(map(len, found))
    lines = [
        f"{known:{width}}  {d.totals.parameters:>12,} parameters  {d.totals.macs:>15,} multiply-adds  {d.rows[0].kind}"
        for known, d in found.items()
    ]
    values = [{"name": k, "parameters": d.totals.parameters, "macs": d.totals.macs} for k, d in found.items()]
    show_values(values, "\n".join(lines), as_json)


def _threads(written: str) -> tuple[int, ...]:
    import torch

    every = torch.get_num_threads()
    known = {"1": (1,), "all": (every,), "both": tuple(sorted({1, every}))}
    if written not in known and not (written.isdecimal() and int(written)):
        raise OptionError(f"--threads {written}: expected 1, all, both, or a number above 0.")
    return known.get(written) or (int(written),)


def _per_axis(option: str, written: str, example: str) -> Any:
    parts = [part.split(":") for part in written.lower().split("x")]
    if not all(len(pair) <= 2 and all(number.isdecimal() for number in pair) for pair in parts):
        raise OptionError(f"{option} {written}: expected a whole number, or one per axis joined by x, as in {example}.")
    entries = tuple(int(pair[0]) if len(pair) == 1 else tuple(map(int, pair)) for pair in parts)
    return entries if len(parts) > 1 or isinstance(entries[0], tuple) else entries[0]


def _version(asked: bool) -> None:
    from importlib.metadata import version

    if asked:
        typer.echo(f"striate {version('striate')}")
        raise typer.Exit


@app.callback()
def every_verb(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """What can be asked without a verb."""


def main() -> None:
    """Run the command line; what its output cannot encode, as in names of files that are no text, it escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
