"""Cohorts of scans and of slides, loaded and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_mil_ext.data.features.bad_cases import BadCasesError
from monai_mil_ext.utils import BagKeys, check_choice
from monai_mil_ext.utils.remote import as_path

from .case_lists import check_scan_list, is_feature_file
from .check_report import CohortReport, Issue
from .cohort_checks import BagSummary, CohortChecks
from .cohort_table import check_table, merge_patients
from .columns import CohortColumns
from .scan_checks import ScanChecks
from .slide_lists import SLIDE_SUFFIXES
from .table_file import TABLE_SUFFIXES, json_rows, read_table
from .tables.column_names import find_header

__all__ = [
    "check_cohort",
    "load_cohort",
    "load_scan_cohort",
    "load_slide_cohort",
]

CASE, PATIENT = str(BagKeys.CASE_ID), str(BagKeys.PATIENT)
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Encode = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


def load_cohort(
    path: Paths,
    columns: CohortColumns | None = None,
    checks: CohortChecks | ScanChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
    on_bad: str = "refuse",
    output_dir: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Load the items of a cohort; see :py:func:`check_cohort` for formats and arguments.

    Args:
        path: the table or JSON file.
        columns: meaning of the columns of a table.
        checks: checks of the bag files or scans.
        root: folder of the bag files.
        level: ``"bag"`` or ``"patient"``.
        on_bad: ``"refuse"``, or ``"skip"`` to leave out cases with errors: a missing or damaged file, a missing or
            invalid label, no instances, features of another width or with NaN. They are logged.
        output_dir: folder of ``left_out.csv`` with the cases that are left out; see
            :py:meth:`CohortReport.usable_items`.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when the file is not a table, or has errors, all of which are listed.
    """
    return check_cohort(path, columns, checks, root, level).usable_items(on_bad, output_dir)


def check_cohort(
    path: Paths,
    columns: CohortColumns | None = None,
    checks: CohortChecks | ScanChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> CohortReport:
    """Check a cohort: a table of bag files (CSV, TSV, Excel), or a table or JSON list of scans.

    A row of a table names a bag, its patient and its label; see :py:class:`CohortColumns`. Its item has ``case_id``
    (the name of the file without suffix), ``patient``, ``image`` (the absolute path, for ``LoadBagd``),
    ``num_instances`` and, as requested, ``label``, ``time``, ``event`` and further columns. At level ``"patient"`` all
    bags of a patient are one item: ``case_id`` is the patient and ``image`` the list of paths, for ``LoadPatientBagd``.

    JSON is ``{"scans": [{"case_id": ..., "patient": ..., "image": ..., "reference": ...}, ...]}``, where ``image`` (a
    DICOM folder or a file) and the optional ``reference`` are relative to ``root`` or to the JSON file; the items have
    absolute paths. Other entries are kept unchanged. A table with the columns ``case_id``, ``patient``, ``image`` and,
    if available, ``reference``, ``label``, ``series``, ``stack``, ``site`` and ``split`` is the same. If all images are
    feature files, or ``columns`` are given, table and JSON are lists of bags.

    Args:
        path: the table or JSON file; or a list with a table of the bags and one of their patients, which are joined by
            the column of the patient, as STAMP's slide table and clini table are.
        columns: meaning of the columns of a table.
        checks: checks of the bag files of a table (:py:class:`CohortChecks`), by default of sizes, encoder and
            resolution; or of the scans of JSON (:py:class:`ScanChecks`), by default of their modality only.
        root: folder of the bag files or scans, by default that of the table; no path may lead out of it. A path is
            relative to it, or to the table. ``"/"`` allows paths to anywhere on this machine. Table and ``root`` may be
            addresses in an object store (``s3://bucket/features``), and paths addresses below ``root``.
        level: ``"bag"`` or ``"patient"``.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when the file is not a table. The report lists the errors in its content.
    """
    check_choice("level", level, ("bag", "patient"))
    files = _files(path)
    names = " + ".join(file.name for file in files)
    if not _lists_scans(files, columns, checks, level):
        if isinstance(checks, ScanChecks):
            raise ValueError(f"`checks` must be CohortChecks for a table of bags, got ScanChecks for {names!r}.")
        report = check_table(files, columns or CohortColumns(), checks or CohortChecks(), root)
        return merge_patients(report) if level == "patient" else report
    report = check_scan_list(files[0], root, columns)
    (checks if isinstance(checks, ScanChecks) else ScanChecks(headers=False)).check(report)
    return report


def _files(path: Paths) -> list[Path]:
    return [as_path(path)] if isinstance(path, (str, os.PathLike)) else [as_path(part) for part in path]


def _lists_scans(
    files: Sequence[Path], columns: CohortColumns | None, checks: CohortChecks | ScanChecks | None, level: str
) -> bool:
    """Return whether a table is one of scans and not of bags: by its checks, or else by its columns and files."""
    needs_scans = isinstance(checks, ScanChecks)
    if len(files) > 1 or level == "patient" or not (needs_scans or (columns is None and checks is None)):
        return False
    if files[0].suffix.lower() not in TABLE_SUFFIXES:
        return needs_scans or not _are_features(row.get("image") for row in json_rows(files[0]) or [{}])
    table = read_table(files[0])
    image, case = (find_header(name, table.columns) for name in ("image", (columns and columns.case) or CASE))
    if needs_scans or image is None or case is None:
        return image is not None and case is not None
    return CohortColumns().bag not in table.columns and not _are_features(row[image] for row in table.rows)


def _are_features(images: Iterable[Any]) -> bool:
    return all(is_feature_file(str(image)) for image in images)


def load_slide_cohort(
    path: Paths,
    encode: Encode,
    columns: CohortColumns | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
    checks: CohortChecks | None = None,
    on_bad: str = "refuse",
    output_dir: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Load a table of slides, compute missing features and return items of feature files.

    The column ``bag`` holds the path of a slide relative to ``root``. The items are those that :py:func:`load_cohort`
    returns for a table of the feature files. The table is checked before anything is encoded; slides that give no
    features are reported after all others are encoded.

    Args:
        path: the table.
        encode: function that computes missing features and replaces the slides of the items by feature files, such as a
            :py:class:`FeatureCache`.
        columns: meaning of the columns of the table.
        root: folder of the slides, by default that of the table; no path may lead out of it.
        level: ``"bag"``, or ``"patient"`` for one item per patient with all slides.
        checks: checks of the feature files.
        on_bad: see :py:func:`load_cohort`.
        output_dir: see :py:func:`load_cohort`.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when the table has errors, or slides give no features; all are listed.
    """
    check_choice("level", level, ("bag", "patient"))
    report = check_table(_files(path), columns or CohortColumns(), _SlideChecks(), root, SLIDE_SUFFIXES)
    if level == "patient":
        _drop_conflicts(report)
    report.usable_items(on_bad, output_dir)
    _encode(report, encode, checks or CohortChecks())
    if report.errors:
        report.usable_items(on_bad, output_dir)
    return merge_patients(report).items if level == "patient" else report.items


def load_scan_cohort(
    scans: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    encode: Encode,
    checks: ScanChecks | None = None,
    on_bad: str = "refuse",
    output_dir: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    columns: CohortColumns | None = None,
) -> list[dict[str, Any]]:
    """Load a cohort of scans, compute missing features and return items of feature files.

    Labels, references and the headers of all scans are checked before anything is encoded; scans that give no features
    are reported after all others are encoded.

    Args:
        scans: table or JSON of scans as for :py:func:`check_cohort`, or its items with absolute paths.
        encode: function that computes missing features and replaces the scans of the items by feature files, such as a
            :py:class:`FeatureCache`.
        checks: checks of the scans.
        on_bad: see :py:func:`load_cohort`.
        output_dir: see :py:func:`load_cohort`.
        root: folder of the scans, by default that of the table or JSON file; no path may lead out of it.
        columns: meaning of the columns of labels, sites, splits and covariates; ``None`` leaves labels to ``checks``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the cohort has errors, or scans give no features; all are listed.

    Example:
        >>> import torch
        >>> from monai_mil_ext.data import FeatureCache
        >>> cache = FeatureCache("features", lambda item: {"image": torch.ones(3, 2)}, progress=False)
        >>> _ = Path("scan.mha").write_text("voxels")
        >>> items = [{"case_id": case, "patient": case, "image": f"{case}.mha"} for case in ("scan", "lost")]
        >>> [item["case_id"] for item in load_scan_cohort(items, cache, on_bad="skip", output_dir="eval")]
        ['scan']
        >>> print(Path("eval/left_out.csv").read_text().strip())
        case,reason
        lost,"`image` must exist, got a path without a file."
    """
    if isinstance(scans, (str, os.PathLike)):
        report = check_scan_list(Path(scans), root, columns)
    else:
        report = CohortReport("cohort", len(scans), [dict(scan) for scan in scans])
    (checks or ScanChecks()).check(report, _encoded(report.items, encode))
    report.usable_items(on_bad, output_dir)
    _encode(report, encode, CohortChecks(features=True))
    return report.usable_items(on_bad, output_dir) if report.errors else report.items


def _encoded(items: Sequence[dict[str, Any]], encode: Encode) -> set[str]:
    """Return the IDs of the cases that have features, if ``encode`` is a cache that knows them."""
    if not items or not hasattr(encode, "missing"):
        return set()
    missing = {item[CASE] for item in encode.missing(items)}
    return {item[CASE] for item in items} - missing


def _encode(report: CohortReport, encode: Encode, checks: CohortChecks) -> None:
    """Replace the items of a report by those of their features, and add an error for each case that has none."""
    items, reasons = _encode_items(report.items, encode)
    summaries = checks.check_widths(checks.inspect_all(Path(item["image"]) for item in items))
    report.items = []
    for item in items:
        summary = summaries[Path(item["image"])]
        if summary.problem:
            reasons[item[CASE]] = summary.problem
        else:
            report.items.append({**item, "num_instances": summary.num_instances})
    report.errors += [Issue(f"case {case!r}", reason, case) for case, reason in reasons.items()]


def _encode_items(items: list[dict[str, Any]], encode: Encode) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the items that give features, and the reasons of the others."""
    try:
        return encode(items), {}
    except BadCasesError as error:
        reasons = error.reasons
    good = [item for item in items if item[CASE] not in reasons]
    return encode(good) if good else [], reasons


def _drop_conflicts(report: CohortReport) -> None:
    """Add an error for each patient whose bags can't be one item, and remove its bags."""
    conflicts = merge_patients(CohortReport(report.name, report.num_rows, report.items)).errors
    patients = {issue.case for issue in conflicts}
    report.errors += conflicts
    report.items = [item for item in report.items if item[PATIENT] not in patients]


@dataclass(frozen=True)
class _SlideChecks(CohortChecks):
    """Checks that do not open slides, which is slow; encoding reports damaged slides anyway."""

    def inspect(self, path: str | os.PathLike[str]) -> BagSummary:
        """Return the summary of a bag with one instance."""
        if not as_path(path).stat().st_size:
            return BagSummary(error="`bag` must be a slide, got an empty file")
        return BagSummary(num_instances=1, in_features=1)
