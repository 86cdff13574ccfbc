"""Logging of the report of a study to MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import keep_loggers, load_json, optional_dependency

__all__ = ["log_report"]

mlflow = optional_dependency("tracking", "mlflow")


def log_report(tracking_uri: str, experiment: str, folder: Path) -> None:
    """Log the report of a finished study to MLflow: a run for each method, with its settings, metrics and files.

    Args:
        tracking_uri: address of the server, or folder or database of a local store.
        experiment: name of the experiment.
        folder: folder of the study.
    """
    with keep_loggers():
        _open_store(tracking_uri, experiment)
        _log(folder, load_json(folder / "report.json"))


def _log(folder: Path, report: Mapping[str, Any]) -> None:
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
