"""Logging of the report of a study to MLflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import load_json, optional_dependency

__all__ = ["log_report"]

mlflow = optional_dependency("tracking", "mlflow")


def log_report(tracking_uri: str, experiment: str, folder: Path) -> None:
    """Log the report of a finished study to MLflow: a run for each method, with its settings, metrics and files.

    Args:
        tracking_uri: address of the server, or folder or database of a local store.
        experiment: name of the experiment.
        folder: folder of the study.
    """
    report = load_json(folder / "report.json")
    with _loggers_kept():
        _log(tracking_uri, experiment, folder, report)


def _log(tracking_uri: str, experiment: str, folder: Path, report: Mapping[str, Any]) -> None:
    _open_store(tracking_uri, experiment)
    for method, summary in report["summaries"].items():
        with mlflow.start_run(run_name=method):
            mlflow.log_params(report["methods"].get(method, {}).get("settings", {}))
            mlflow.log_metrics(dict(_metrics(summary or {})))
            mlflow.set_tag("failed", str(not summary).lower())
            for name in ("report.html", "report.json", f"predictions/{method}.csv"):
                if (folder / name).exists():
                    mlflow.log_artifact(str(folder / name))
            if (folder / "tables").is_dir():
                mlflow.log_artifacts(str(folder / "tables"), "tables")


@contextmanager
def _loggers_kept() -> Iterator[None]:
    """Leave other loggers as they are: MLflow prepares its database by Alembic, which disables them."""
    loggers = [entry for entry in logging.root.manager.loggerDict.values() if isinstance(entry, logging.Logger)]
    disabled = [(entry, entry.disabled) for entry in loggers]
    level, handlers = logging.root.level, [*logging.root.handlers]
    try:
        yield
    finally:
        for entry, state in disabled:
            entry.disabled = state
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers


def _open_store(tracking_uri: str, experiment: str) -> None:
    """Select server and experiment; of a folder, its database, since MLflow no longer writes runs as plain files."""
    is_folder = tracking_uri.startswith("file:") or "://" not in tracking_uri
    if not is_folder:
        mlflow.set_tracking_uri(tracking_uri)
    else:
        folder = Path(tracking_uri.removeprefix("file:").replace("///", "/", 1)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, (folder / "files").as_uri())
    mlflow.set_experiment(experiment)


def _metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each metric that is known, with the limits of its interval."""
    for name, entry in summary.get("values", {}).items():
        for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            if entry and entry.get(key) is not None:
                yield f"{name}{suffix}", float(entry[key])
