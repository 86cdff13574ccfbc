"""Selection of settings by the loss on the inner validation part: a small grid, or Optuna."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from monai_mil_ext.utils import (
    check_choice,
    check_count,
    keep_loggers,
    load_json,
    optional_dependency,
    write_csv,
    write_json,
)
from monai_mil_ext.utils.exceptions import case_error, describe_error

__all__ = ["Selection"]

optuna = optional_dependency("study", "optuna")

MAX_CANDIDATES = 64
LOSSES, TABLE, STORAGE = "losses.json", "candidates.csv", "optuna.db"
DEFAULT_RANGES = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}
RANGE = ("low", "high", "log", "step")
COLUMNS = ("candidate", "loss", "state", "reason")
Report = Callable[[int, float], None]
Row = dict[str, Any]
logger = logging.getLogger(__name__)


class Score(Protocol):
    """Function that trains with some settings and returns the loss on the inner validation part."""

    def __call__(self, settings: Mapping[str, Any], report: Report | None = None) -> float:
        """Return the loss; ``report``, if given, is called with number and validation loss of each epoch."""


@dataclass(frozen=True)
class Selection:
    """Selection of settings by the lowest loss on the inner validation part of a fold.

    Test cases are never given to it, so that the test part of a fold stays unseen. The default settings are always a
    candidate, the first one; of equal losses, the first wins.

    - ``trials=0``: all combinations of the ``grid``, at most 64.
    - ``trials`` > 0: as many further candidates by Optuna's tree-structured Parzen estimator. A candidate whose
      validation loss is above the median of the others is stopped early.

    Args:
        grid: values by name of the setting, such as ``{"learning_rate": [1e-4, 1e-3]}``. With ``trials``, also ranges,
            such as ``{"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}``; by default this one.
        trials: number of candidates that Optuna proposes.
        seed: seed of the proposals.

    Raises:
        ValueError: if the grid is invalid or too large.

    Example:
        >>> selection = Selection({"learning_rate": [0.1, 0.2], "dropout": [0.0, 0.5]})
        >>> def loss(settings, report=None):
        ...     return abs(settings.get("learning_rate", 1.0) - 0.2) + settings.get("dropout", 0.0)
        >>> settings, table = selection.choose(loss, "selection")
        >>> settings, len(table)
        ({'learning_rate': 0.2, 'dropout': 0.0}, 5)
    """

    grid: Mapping[str, Any] | None = None
    trials: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(trials=self.trials, seed=self.seed)
        grid = _plain_grid(self.grid or (DEFAULT_RANGES if self.trials else {}))
        for name, values in grid.items():
            _check_values(name, values, bool(self.trials))
        size = 1 if self.trials else math.prod(map(len, grid.values()))
        if size > MAX_CANDIDATES:
            raise ValueError(
                f"`grid` must have at most {MAX_CANDIDATES} combinations, got {size}: use fewer values, or `trials`."
            )
        object.__setattr__(self, "grid", grid)

    @property
    def is_active(self) -> bool:
        """True if there are candidates beside the default settings."""
        return bool(self.grid)

    def check(self, allowed: Mapping[str, Any] | Sequence[str]) -> None:
        """Check that each name of the grid is an allowed setting.

        Raises:
            ValueError: if one is not; the message suggests close matches.
        """
        for name in self.grid or {}:
            check_choice("grid", name, allowed)

    def choose(
        self, score: Score, folder: str | os.PathLike[str], defaults: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[Row]]:
        """Choose the settings with the lowest loss, and write ``candidates.csv``.

        After an interruption, the candidates that are finished are not repeated, and the choice is the same. A
        candidate that fails, such as one that needs too much memory, or whose loss is not finite, is never chosen.

        Args:
            score: function of settings, which are added to the default ones, and of ``report(epoch, loss)``, which may
                raise an exception to stop a candidate; it returns the loss on the inner validation part.
            folder: folder of ``candidates.csv`` and of the losses of finished candidates.
            defaults: all settings with their default values; other names are refused, and combinations that equal them
                are not repeated.

        Returns:
            The chosen settings, empty for the default ones, and a row for each candidate: ``candidate``
            (0 is the default), the settings, ``loss``, ``state`` (``"complete"``, ``"pruned"`` or ``"failed"``) and
            ``reason``. Without a grid the score is not called, and both are empty.

        Raises:
            ValueError: if a name is not among the defaults, or no candidate has a finite loss.
        """
        if defaults is not None:
            self.check(list(defaults))
        if not self.is_active:
            return {}, []
        candidates = _Candidates(score, Path(folder), dict(defaults or {}))
        candidates.evaluate({})
        if self.trials:
            self._search(candidates)
        else:
            grid = self.grid or {}
            for values in itertools.product(*grid.values()):
                settings = dict(zip(grid, values, strict=True))
                if candidates.find(settings, candidates.rows) is None:
                    candidates.evaluate(settings)
        return candidates.best(), candidates.write_table()

    def _search(self, candidates: _Candidates) -> None:
        """Evaluate proposals of Optuna, one at a time, each drawn with a seed of its own so that a restart is equal."""
        name = json.dumps([self.grid, self.seed])
        with _quiet(), _open_study(candidates.folder / STORAGE, hashlib.sha256(name.encode()).hexdigest()) as study:
            states = optuna.trial.TrialState
            for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):  # its process was killed
                study.tell(trial.number, state=states.FAIL)
            finished = (states.COMPLETE, states.PRUNED)
            for trial in study.get_trials(deepcopy=False, states=finished):
                candidates.add(_row(trial.user_attrs["settings"], **trial.user_attrs["result"]))
            for number in range(len(study.get_trials(deepcopy=False, states=finished)), self.trials):
                study.sampler = optuna.samplers.TPESampler(seed=self.seed + 1000 * number)
                self._run_trial(study, candidates)

    def _run_trial(self, study: Any, candidates: _Candidates) -> None:
        trial = study.ask()
        settings = {name: _suggest(trial, name, values) for name, values in (self.grid or {}).items()}

        def report(epoch: int, loss: float) -> None:
            trial.report(loss if math.isfinite(loss) else math.inf, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        earlier = candidates.find(settings, candidates.rows)
        row = candidates.try_settings(settings, report) if earlier is None else {**earlier, "settings": settings}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("result", {key: row[key] for key in ("loss", "state", "reason")})
        if row["state"] == "pruned":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, math.inf if row["loss"] is None else row["loss"])
        candidates.add(row)


class _Candidates:
    """Candidates with their losses, of which the finished ones are kept in a file."""

    def __init__(self, score: Score, folder: Path, defaults: dict[str, Any]) -> None:
        self.score, self.folder, self.defaults = score, folder, defaults
        self.rows: list[Row] = []
        file = folder / LOSSES
        self.known: list[Row] = load_json(file)["candidates"] if file.is_file() else []

    def evaluate(self, settings: dict[str, Any]) -> None:
        """Add a candidate, whose loss is computed unless it is known."""
        row = self.find(settings, self.known)
        if row is None:
            row = self.try_settings(settings, None)
            self.known.append(row)
            write_json(self.folder / LOSSES, {"candidates": self.known})
        self.add(row)

    def find(self, settings: dict[str, Any], rows: Sequence[Row]) -> Row | None:
        """Return the row with the same settings, if there is one."""
        wanted = self.defaults | settings
        return next((row for row in rows if self.defaults | row["settings"] == wanted), None)

    def add(self, row: Row) -> None:
        """Add a candidate that is finished."""
        loss = row["reason"] if row["loss"] is None else f"loss {row['loss']:.4g}"
        logger.info("Candidate %d (%s): %s.", len(self.rows), row["settings"] or "default settings", loss)
        self.rows.append(row)

    def try_settings(self, settings: dict[str, Any], report: Report | None) -> Row:
        """Return the row of a candidate; an error of any but the default one is its result."""
        pruned = False

        def watched(epoch: int, loss: float) -> None:
            nonlocal pruned
            if report is None:
                return
            try:
                report(epoch, loss)
            except optuna.TrialPruned:
                pruned = True  # whatever the training makes of the exception
                raise

        try:
            loss = float(self.score(settings, report=watched))
        except Exception as error:
            if pruned:
                return _row(settings, None, "pruned", "stopped early: the loss was above the median")
            cause = case_error(error)
            if cause is None or not settings:
                raise
            return _row(settings, None, "failed", describe_error(cause))
        return (
            _row(settings, loss, "complete") if math.isfinite(loss) else _row(settings, None, "failed", f"loss {loss}")
        )

    def best(self) -> dict[str, Any]:
        """Return the settings with the lowest loss."""
        finished = [row for row in self.rows if row["loss"] is not None]
        if not finished:
            raise ValueError(f"`score` must be finite for a candidate, got none of {len(self.rows)}.")
        return dict(min(finished, key=lambda row: row["loss"])["settings"])

    def write_table(self) -> list[Row]:
        """Write and return the table of the candidates."""
        names = list(dict.fromkeys(name for row in self.rows for name in row["settings"]))
        table = []
        for number, row in enumerate(self.rows):
            settings = {name: row["settings"].get(name, self.defaults.get(name)) for name in names}
            table.append({"candidate": number, **settings, **{key: row[key] for key in COLUMNS[1:]}})
        write_csv(self.folder / TABLE, table, [COLUMNS[0], *names, *COLUMNS[1:]])
        return table


def _row(settings: dict[str, Any], loss: float | None, state: str, reason: str = "") -> Row:
    return {"settings": settings, "loss": loss, "state": state, "reason": reason}


def _plain_grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Return the grid as JSON has it; a number as YAML reads ``1e-3``, which is text to it, becomes a number."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in value]
        if isinstance(value, str):
            with suppress(ValueError):
                return float(value)
        return value

    try:
        return dict(json.loads(json.dumps(plain(grid))))
    except TypeError:
        raise ValueError("`grid` must have values that JSON can store, got others.") from None


def _check_values(name: str, values: Any, with_ranges: bool) -> None:
    if name in COLUMNS:
        raise ValueError(f"`grid` must have names of settings, got {name!r}.")
    if isinstance(values, Mapping):
        numbers = [values.get("low"), values.get("high")]
        is_range = with_ranges and set(values) <= set(RANGE) and all(isinstance(v, (int, float)) for v in numbers)
        if is_range and values["low"] < values["high"] and (values["low"] > 0 or not values.get("log")):
            return
        rule = "low < high, and 0 < low with log" if with_ranges else "lists of values; ranges need `trials`"
        raise ValueError(f"`grid` must have {rule}, got {dict(values)} for {name!r}.")
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"`grid` must have a list of values for each setting, got {values!r} for {name!r}.")


def _suggest(trial: Any, name: str, values: Any) -> Any:
    """Return a proposal; a list is proposed by index, so that its values can be of any kind."""
    if not isinstance(values, Mapping):
        return values[trial.suggest_categorical(name, list(range(len(values))))]
    is_integer = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (trial.suggest_int if is_integer else trial.suggest_float)(name, **values)


@contextmanager
def _open_study(file: Path, name: str) -> Iterator[Any]:
    """Open a study of Optuna in a file, created if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with keep_loggers():
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": partial(_connect, file)})
    try:
        yield optuna.create_study(
            storage=storage,
            study_name=name,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
            load_if_exists=True,
        )
    finally:
        storage.engine.dispose()


def _connect(file: Path) -> sqlite3.Connection:
    """Connect to a database by its path, since some characters have a meaning in an address.

    It does not wait for the disk after each epoch: all is kept if the process is killed.
    """
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Optuna logs of each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
