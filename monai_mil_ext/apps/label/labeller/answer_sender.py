"""Answers of a model as DICOM objects in the archive from which the scan came."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai_mil_ext.apps.label.bundle_runner import BundleRunner
from monai_mil_ext.apps.label.errors import http_error
from monai_mil_ext.data import DicomArchive, NotStoredError
from monai_mil_ext.data.scans.dicom_files import read_header
from monai_mil_ext.utils.exceptions import hide_absolute_paths
from monai_mil_ext.utils.probabilities import WITHOUT_CLASSES

__all__ = ["send_answer"]

CASE = "scan"  # case ID of the result, whose name stays here
WITHOUT_REPORT = ("seg", "ko")
KINDS = ("seg", "sr", "ko")
LONGEST = 1800  # seconds
logger = logging.getLogger(__name__)


def send_answer(bundle: BundleRunner, datastore: Any, image: str) -> dict[str, str]:
    """Store the answer of a model in the archive of the scan, as the bundle's ``inference --dicom --send`` does.

    The bundle runs in a process of its own: MONAI Label needs pydicom 2, and writing these objects pydicom 3, which
    lies with highdicom in the folder ``dicom`` of the environment.

    Args:
        bundle: bundle of scans.
        datastore: datastore of the archive.
        image: UID of the series of the scan.

    Returns:
        UID of the new series of each kind: ``seg``, ``sr`` (of a model with classes) and ``ko``.

    Raises:
        HTTPException: 501 without highdicom, 400 when the answer can't be written, 502 when the archive does not take
            it.
    """
    datastore.get_image_uri(image)  # which fetches the series
    series = Path(datastore._datastore.image_path()) / image
    with TemporaryDirectory() as folder:
        files = _write(bundle, series, Path(folder))
        client = datastore._client
        parts = [client.base_url, getattr(client, "stow_url_prefix", None)]
        auth = getattr(getattr(client, "_session", None), "auth", None)
        try:
            DicomArchive("/".join(part.strip("/") for part in parts if part), auth=auth).store(files)
        except NotStoredError as error:
            raise http_error(str(error), 502) from error
        return {file.stem.removeprefix(f"{CASE}_"): str(read_header(file).SeriesInstanceUID) for file in files}


def _write(bundle: BundleRunner, series: Path, folder: Path) -> list[Path]:
    """Infer the scan of a series, and return the files of its answer."""
    packages = Path(sys.prefix) / "dicom"
    if not (packages / "highdicom").is_dir():
        raise http_error("highdicom must be installed for the server, as by scripts/label_server --setup.", 501)
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = _command(bundle, series, folder)
    options: dict[str, Any] = {"cwd": bundle.root, "env": {**os.environ, "PYTHONPATH": path}, "timeout": LONGEST}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # noqa: S603 (no shell)
    files = [file for kind in KINDS if (file := folder / CASE / f"{CASE}_{kind}.dcm").is_file()]
    if done.returncode or not files:
        logger.error("a bundle failed: %s", done.stderr)
        raise http_error(f"the answer must be one that can be written as DICOM, got {_reason(folder, done.stderr)}")
    return files


def _command(bundle: BundleRunner, series: Path, folder: Path) -> Sequence[str]:
    configs = json.dumps(bundle.config_files("inference"))
    values = {"config_file": configs, "bundle_root": str(bundle.root), "input": str(series), "output_dir": str(folder)}
    values |= {"case_id": CASE, "pictures": "[]", "logging_file": "False"}
    values["dicom"] = f"${[*WITHOUT_REPORT]} if @task in {[*WITHOUT_CLASSES]} else {[*KINDS]}"
    options = [text for name, value in values.items() for text in (f"--{name}", value)]
    return [sys.executable, "-m", "monai.bundle", "run", *options]


def _reason(folder: Path, log: str) -> str:
    """Return why there are no files, without a path."""
    record = folder / CASE / "prediction.json"
    stated = json.loads(record.read_text("utf-8")).get("dicom") or {} if record.is_file() else {}
    last = (log.strip().splitlines() or ["no reason"])[-1]
    return str(stated.get("missing") or hide_absolute_paths(ValueError(), last))
