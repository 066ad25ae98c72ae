"""Sweeps: many runs over a space of options and of a text's names, chosen by Optuna and shared by many processes."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from . import draws, files, notation, runs, showing, starts, training, zoo
from .errors import OptionError, StriateError, unknown_name
from .options import SYNONYMS, Options, number, options_of
from .processes import Group, announced

JOURNAL, SPEC, STUDY = "journal.log", "sweep.json", "sweep"
HELD_OUT = 0.1
PRESET = {"validation": HELD_OUT, "report": False}
EXPECTED = "expected a range such as 1..3 or 1e-4..1e-1:log, or a list such as 16,32,64"
SETTLED = ("validation", "seed")
"""Options that say which examples trials are judged by, so that these must be the same for all."""


@dataclass(frozen=True)
class Choice:
    """The values that one name may take.

    Args:
        values: These, if they are listed.
        low: Else from here
        high: to here, inclusive; whole numbers if both are.
        log: Evenly by their logarithms.

    >>> Choice.of("learning_rate", "1e-4..1e-1:log")
    Choice(values=(), low=0.0001, high=0.1, log=True)
    >>> Choice.of("optimizer", "adamw,momentum").values
    ('adamw', 'momentum')
    >>> Choice.of("device", "cuda:0,cuda:1").values
    ('cuda:0', 'cuda:1')
    """

    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @staticmethod
    def of(name: str, written: str) -> Choice:
        """From what a person writes: ``1..3``, ``1e-4..1e-1:log`` or ``16,32,64``.

        Raises:
            OptionError: It is none of these.
        """
        return Choice._range(name, written) if ".." in written else Choice._list(name, written)

    @staticmethod
    def _list(name: str, written: str) -> Choice:
        if written.endswith(":log"):
            raise OptionError(f"{name}={written}: :log is for ranges such as 1e-4..1e-1:log; leave it out of a list.")
        values = tuple(number(word.strip()) for word in written.split(",") if word.strip())
        if not values:
            raise OptionError(f"{name}={written}: {EXPECTED}.")
        return Choice(values=values)

    @staticmethod
    def _range(name: str, written: str) -> Choice:
        ends, _, scale = written.partition(":")
        low, high = map(number, ends.split("..", 1))
        numeric = not isinstance(low, str) and not isinstance(high, str)
        if not numeric or not low < high or scale not in ("", "log") or (scale and low <= 0):
            raise OptionError(f"{name}={written}: {EXPECTED}.")
        return Choice(low=low, high=high, log=bool(scale))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values, or the ends of the range."""
        return self.values or (self.low, self.high)

    def drawn(self, name: str, trial: Any) -> Any:
        """One of the values, as Optuna's trial suggests."""
        if self.values:
            return trial.suggest_categorical(name, list(self.values))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, float(self.low), float(self.high), log=self.log)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        number: Of the trial, from 0.
        values: What was chosen.
        score: Best accuracy, or mean IoU, on the examples to judge by; None if the run failed or was broken off.
        state: "complete", "pruned" or "fail"; "running" if it has not ended, "stopped" if it was broken off.
        folder: Of the run.
        error: Why it failed.
    """

    number: int
    values: dict[str, Any]
    score: float | None
    state: str
    folder: Path
    error: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The outcome of a sweep.

    Args:
        folder: Where everything was written.
        trials: All of them, the best first.
    """

    folder: Path
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest score.

        Raises:
            OptionError: None was completed.
        """
        if not self.trials or self.trials[0].score is None:
            errors = [one.error for one in sorted(self.trials, key=lambda one: one.number) if one.error]
            last = f" The last error: {errors[-1]}" if errors else ""
            raise OptionError(f"{self.folder}: no trial was completed.{last}")
        return self.trials[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        trials = [{**one.__dict__, "folder": str(one.folder)} for one in self.trials]
        return {"folder": str(self.folder), "trials": trials}

    def __str__(self) -> str:
        names = list(self.trials[0].values) if self.trials else []
        cells = [["trial", "score", "state", *names]]
        for one in self.trials:
            score = "–" if one.score is None else f"{one.score:.4f}"
            chosen = [f"{v:.4g}" if isinstance(v := one.values.get(name, "–"), float) else str(v) for name in names]
            cells.append([str(one.number), score, one.state, *chosen])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rows = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*rows, *(f"trial {one.number} failed: {one.error}" for one in self.trials if one.error)])


def search(
    network: str | Path,
    data: str | Path,
    space: Mapping[str, str],
    *,
    trials: int = 20,
    jobs: int = 1,
    ray: bool = False,
    out: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Sweep:
    """Train many times over a space of options and names, and say which did best.

    Optuna's tree-structured Parzen estimator chooses (J. Bergstra et al., "Algorithms for Hyper-Parameter
    Optimization", 2011); runs that are worse than the median at their epoch are stopped. Judged are examples that are
    neither trained on nor the test part: the data's validation part, or a tenth of the training part. Any number of
    processes and machines may work on one sweep: each calls this with the same folder, which holds Optuna's journal.
    The values of a trial depend on the seed, the trial's number and the trials that have ended. One that is broken off,
    by Ctrl-C or a kill, does not count.

    Args:
        network: Notation text, zoo name or file; names in it may be swept.
        data: A data set's name or path.
        space: For each option or name what it may be: ``"1..3"``, ``"1e-4..1e-1:log"``, ``"adamw,momentum"``.
        trials: How many in all; a sweep that is there goes on up to this number.
        jobs: Processes on this machine.
        ray: Let Ray run the jobs, on whatever machines it has.
        out: The sweep's folder; None is ``sweeps/`` and the network's name.
        progress: Called with ``(done, total, what)``.
        **options: Those of training that stay the same.

    Raises:
        OptionError: A name or a value cannot be used, a package is missing, or torchrun or SLURM started the process
            as one of several.
        DataError: The data cannot be used.
        UnknownNameError: There is no such data set.
    """
    _check_alone()
    choices = {name: Choice.of(name, written) for name, written in space.items()}
    if not choices:
        raise OptionError("a sweep needs something to vary, as in learning_rate=1e-4..1e-1:log or N=1..3.")
    _check_names(network, choices, options)
    named = str(network) if str(network) in zoo.names() else "network"
    folder = Path(out) if out is not None else Path("sweeps") / f"{named}-{Path(str(data)).stem}"
    options = PRESET | {name: value for name, value in options.items() if value is not None}
    _check(network, data, choices, options, progress)
    spec = {
        "network": str(network),
        "data": str(data),
        "space": dict(space),
        "options": dict(sorted(options.items())),
    }
    _check_spec(folder, spec)
    try:
        _share_out(folder, trials, jobs, ray, progress)
    except KeyboardInterrupt:
        ended = sum(one.state.is_finished() for one in _study(folder).get_trials(deepcopy=False))
        if ended >= trials:
            return _outcome(folder)
        command = _command(spec, folder, trials, jobs, ray)
        raise runs.stopped(f"{ended} of {trials} trials", folder, command) from None
    return _outcome(folder)


def _check_alone() -> None:
    """Refuse processes that would train each trial together, although each of them has drawn another one."""
    size = int(announced(os.environ).get("WORLD_SIZE", Group.current().size))
    if size > 1:
        raise OptionError(
            f"a sweep shares out trials, not steps: this is one of {size} processes that torchrun or srun started for "
            "one run; start striate sweep once on each machine, with --jobs for several processes of it."
        )


def _check_names(network: str | Path, choices: Mapping[str, Choice], options: Mapping[str, Any]) -> None:
    used = notation.read(zoo.read(network), _firsts(choices))[1]
    for name in [*choices, *options]:
        if name not in Options.model_fields and name not in used:
            raise unknown_name(
                "training option or name of the text", name, [*Options.model_fields, *sorted(used)], SYNONYMS
            )


def _firsts(choices: Mapping[str, Choice]) -> dict[str, Any]:
    """One value for each name that is no option."""
    return {name: choice.ends[0] for name, choice in choices.items() if name not in Options.model_fields}


def _check(
    network: str | Path,
    data: str | Path,
    choices: Mapping[str, Choice],
    options: Mapping[str, Any],
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Refuse, before the first trial, what no trial could be trained or judged with."""
    swept = {name: choice.ends for name, choice in choices.items() if name in Options.model_fields}
    if unfit := next((name for name in SETTLED if name in swept), None):
        raise OptionError(
            f"{unfit} says which examples trials are judged by, so it must be the same for all; give it one value."
        )
    for name, values in swept.items():
        for value in values:
            options_of({**options, name: value})
    paper = None if str(network) in zoo.names() else zoo.architecture(network, _firsts(choices))
    first = options_of({**options, **{name: values[0] for name, values in swept.items()}})
    loaded = starts.load(data, paper, first, progress)
    if loaded.validation is None:
        raise OptionError(
            f"validation={first.validation:g} leaves {loaded.name} without a validation part, and a sweep is never "
            f"judged by the test part; leave it out, or give a share such as {HELD_OUT}."
        )


def _check_spec(folder: Path, spec: dict[str, Any]) -> None:
    """Write what is swept, or see that it is what the folder holds, and the folder is the sweep's own."""
    path, text = folder / SPEC, json.dumps(spec, indent=2, default=str) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise OptionError(f"{folder}: holds another sweep; choose another folder, or give what {path} says.")
    if not path.exists():
        others = [one for one in folder.iterdir() if not one.name.startswith(".")] if folder.is_dir() else []
        if [one for one in others if one.name not in (SPEC, JOURNAL)]:
            raise OptionError(f"{folder}: is not empty; a sweep needs a folder of its own.")
        files.write(path, text.encode())


def _command(spec: Mapping[str, Any], folder: Path, trials: int, jobs: int, ray: bool) -> str:
    """What goes on with the sweep, as it is typed."""
    space = [f"{name}={written}" for name, written in spec["space"].items()]
    given = {name: value for name, value in spec["options"].items() if (name, value) not in PRESET.items()}
    words = ["striate", "sweep", spec["network"], *space, "--data", spec["data"], "--out", str(folder)]
    shared = [*(["--jobs", str(jobs)] if jobs > 1 else []), *(["--ray"] if ray else [])]
    return " ".join([shlex.join([*words, "--trials", str(trials), *shared]), *starmap(showing.flag, given.items())])


def _study(folder: Path) -> Any:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError:
        raise OptionError("a sweep needs a package: pip install 'striate[sweep]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(folder / JOURNAL)
    storage = optuna.storages.JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    return optuna.create_study(
        study_name=STUDY,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
    )


def _share_out(
    folder: Path, trials: int, jobs: int, ray: bool, progress: Callable[[int, int, str], None] | None
) -> None:
    """Let one process or several run the trials."""
    _study(folder)
    if ray:
        _by_ray(folder, trials, jobs)
    elif jobs > 1:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            threads = max(1, torch.get_num_threads() // jobs)
            list(pool.map(_work, [folder] * jobs, [trials] * jobs, [threads] * jobs))
    else:
        _work(folder, trials, None, progress)


def _work(folder: Path, trials: int, threads: int | None = None, progress: Callable[..., None] | None = None) -> None:
    """Run trials until there are as many as wanted, whoever runs them."""
    if threads is not None:
        torch.set_num_threads(threads)
    study = _study(folder)
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    while (claimed := _claimed(study, folder, trials, spec["options"].get("seed", 0))) is not None:
        trial, lock = claimed
        try:
            study.tell(trial, *_ended(folder, spec, trial))
        finally:
            lock.release()
        if progress is not None:
            progress(min(trials, trial.number + 1), trials, "sweeping")


def _ended(folder: Path, spec: Mapping[str, Any], trial: Any) -> tuple[float | None, Any]:
    """A run's score, and how it ended; what it was too large for, or PyTorch cannot do, fails this trial alone."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    try:
        return _trial(folder, spec, trial), TrialState.COMPLETE
    except TrialPruned:
        return None, TrialState.PRUNED
    except (StriateError, RuntimeError, MemoryError) as error:
        trial.set_user_attr("error", str(error) or type(error).__name__)
        return None, TrialState.FAIL


def _claimed(study: Any, folder: Path, trials: int, seed: int) -> tuple[Any, FileLock] | None:
    """The next trial, and the lock that says that it runs; None if as many as wanted have ended or run now."""
    from optuna.samplers import TPESampler

    with FileLock(folder / ".lock"):
        known = study.get_trials(deepcopy=False)
        if sum(one.state.is_finished() or _runs(folder, one.number) for one in known) >= trials:
            return None
        study.sampler = TPESampler(seed=draws.key(seed, len(known), STUDY) % 2**32)
        trial = study.ask()
        lock = _lock(folder, trial.number)
        lock.acquire()
        return trial, lock


def _lock(folder: Path, number: int) -> FileLock:
    return FileLock(folder / f".trial-{number:04}.lock", blocking=False)


def _runs(folder: Path, number: int) -> bool:
    """Whether a process has the trial in hand; one that was killed has not."""
    lock = _lock(folder, number)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _trial(folder: Path, spec: Mapping[str, Any], trial: Any) -> float:
    """One run; its score."""
    import optuna

    drawn = {name: Choice.of(name, written).drawn(name, trial) for name, written in spec["space"].items()}
    names = {name: value for name, value in drawn.items() if name not in Options.model_fields}
    network = spec["network"]
    if names:
        network = notation.format(zoo.architecture(network, names))
    options = {**spec["options"], **{name: value for name, value in drawn.items() if name not in names}}

    def report(figures: Mapping[str, Any]) -> None:
        trial.report(training.score(figures), int(figures["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    place = folder / f"trial-{trial.number:04}"
    trial.set_user_attr("folder", str(place))
    run = runs.train(network, spec["data"], out=place, on_epoch=report, **options)
    return max(map(training.score, run.history), default=-math.inf)


def _by_ray(folder: Path, trials: int, jobs: int) -> None:
    try:
        import ray
    except ImportError:
        raise OptionError("--ray needs a package: pip install ray.") from None
    work = ray.remote(_work)
    ray.init(address=os.environ.get("RAY_ADDRESS"), ignore_reinit_error=True)
    place = folder.absolute()  # that all machines see
    ray.get([work.remote(place, trials) for _ in range(jobs)])


def _state(folder: Path, trial: Any) -> str:
    """How a trial stands; one that was stopped is nobody's any more."""
    left = trial.state.name == "RUNNING" and not _runs(folder, trial.number)
    return "stopped" if left else str(trial.state.name).lower()


def _outcome(folder: Path) -> Sweep:
    found = [
        Trial(
            trial.number,
            dict(trial.params),
            trial.value if trial.value is not None and math.isfinite(trial.value) else None,
            _state(folder, trial),
            Path(trial.user_attrs.get("folder", folder)),
            trial.user_attrs.get("error"),
        )
        for trial in _study(folder).get_trials(deepcopy=False)
    ]
    return Sweep(folder, tuple(sorted(found, key=lambda one: -math.inf if one.score is None else one.score)[::-1]))
