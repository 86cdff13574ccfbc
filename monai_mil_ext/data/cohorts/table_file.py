"""Reader of tables: CSV, TSV and Excel."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.utils import check_choice, check_local, load_json, optional_dependency
from monai_mil_ext.utils.remote import StoreError, as_path, is_remote, isfile

__all__ = ["TABLE_SUFFIXES", "Table", "join_tables", "json_rows", "read_table"]

openpyxl = optional_dependency("excel", "openpyxl")

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
JSON = ".json"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Table(NamedTuple):
    """Column names and rows of a table, and the number of each row as in a spreadsheet, from 2."""

    columns: list[str]
    rows: list[dict[str, str]]
    numbers: list[int]


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table whose first row holds the column names; cells are text without surrounding whitespace.

    ``.csv`` is separated by commas, semicolons or tabs, whichever divide the first row into most cells, or as the line
    ``sep=;`` of Excel before it says; ``.tsv`` by tabs. Both are UTF-8, or UTF-16 with its byte-order mark. Of
    ``.xlsx`` the first sheet is read. Empty rows are ignored, and so is a first column without a name, the index of a
    data frame.
    ``.json`` is ``{"scans": [{...}, ...]}`` or the list alone, whose values become text.
    Text is not converted, so ``007`` stays ``007``; whole numbers of a spreadsheet get no decimal point.

    Args:
        path: the file, or its address in an object store.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when openpyxl, which Excel files need, is not installed.
        ValueError: when the file is not such a table, has no row, unnamed columns or repeated names, or a row with more
            cells than columns.
    """
    file = _existing(path)
    if file.suffix.lower() == JSON:
        return _json_table(file)
    check_choice("path", file.suffix.lower(), TABLE_SUFFIXES)
    try:
        cells = _read_excel(file) if file.suffix.lower() == ".xlsx" else _read_text(file)
    except (ImportError, StoreError):
        raise
    except Exception:  # of many kinds for a damaged workbook
        raise ValueError(
            f"`path` must be a readable table in UTF-8, UTF-16 or Excel's .xlsx, got {file.name!r}."
        ) from None
    filled = [(number, row) for number, row in cells if any(row)]
    if len(filled) < 2:
        raise ValueError(
            f"`path` must be a table with column names and a row, got {len(filled)} rows in {file.name!r}."
        )
    columns = _trim(filled[0][1])
    if columns and not columns[0]:
        columns, filled = columns[1:], [(number, row[1:]) for number, row in filled]
    _check_columns(columns, file.name)
    long = [number for number, row in filled if len(_trim(row)) > len(columns)]
    if long:
        raise ValueError(
            f"rows must have at most the {len(columns)} cells of row 1, got more in {long} of {file.name!r}."
        )
    rows = [dict(zip(columns, [*row, *[""] * len(columns)], strict=False)) for _, row in filled[1:]]
    return Table(columns, rows, [number for number, _ in filled[1:]])


def _existing(path: str | os.PathLike[str]) -> Path:
    file = as_path(path)
    if not is_remote(file):
        check_local(path=file)
    if not isfile(file):
        raise FileNotFoundError(f"`path` must be a table that exists, got {file.name!r}.")
    return file


def join_tables(tables: Sequence[Table], bag: str, patient: str) -> Table:
    r"""Join a table of bags and further tables of their patients, such as the slide and the clini table of STAMP.

    Args:
        tables: the tables in any order; one of them has a row for each bag.
        bag: column of the bags.
        patient: column of the patients in each table.

    Returns:
        The table of the bags with the columns of the other tables, whose cells are empty for an unknown patient.

    Raises:
        ValueError: when none or several have the column ``bag``, one lacks ``patient``, or a patient has two rows that
            differ.

    Example:
        >>> _ = Path("slide.csv").write_text("FILENAME,PATIENT\na.h5,p\nb.h5,q\n")
        >>> _ = Path("clini.csv").write_text("PATIENT,KRAS\np,1\n")
        >>> join_tables([read_table("clini.csv"), read_table("slide.csv")], "FILENAME", "PATIENT").rows[0]
        {'FILENAME': 'a.h5', 'PATIENT': 'p', 'KRAS': '1'}
    """
    tables = list(tables)
    with_bags = [i for i, table in enumerate(tables) if bag in table.columns]
    lacking = [sorted(table.columns) for table in tables if patient not in table.columns]
    if len(with_bags) != 1 or lacking:
        got = f"{len(with_bags)} with {bag!r}" if len(with_bags) != 1 else f"one with the columns {lacking[0]}"
        raise ValueError(f"tables must have the column {patient!r}, and one of them {bag!r}, got {got}.")
    base = tables.pop(with_bags[0])
    columns, rows = list(base.columns), [dict(row) for row in base.rows]
    for table in tables:
        columns += [name for name in table.columns if name not in columns]
        known = _rows_by_patient(table, patient)
        empty = dict.fromkeys(table.columns, "")
        rows = [{**known.get(_plain_id(row[patient]), empty), **row} for row in rows]
    return Table(columns, [{name: row.get(name, "") for name in columns} for row in rows], base.numbers)


def _rows_by_patient(table: Table, patient: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        if rows.setdefault(_plain_id(row[patient]), row) != row:
            raise ValueError(f"tables must have one row for each patient, got another for that of row {number}.")
    return rows


def _plain_id(cell: str) -> str:
    """Return an ID without the decimal point of a whole number, which one of two data frames may have added."""
    return re.sub(r"(?<=\d)\.0+$", "", cell)


def json_rows(file: Path) -> list[dict[str, Any]] | None:
    """Return the rows of JSON of the form ``{"scans": [{...}, ...]}``, or of the list alone; None for another form."""
    try:
        content = load_json(file)
        rows = content["scans"] if isinstance(content, dict) else content
    except (ValueError, KeyError):
        return None
    return rows if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) else None


def _json_table(file: Path) -> Table:
    rows = json_rows(file)
    if rows is None:
        raise ValueError(f'`path` must be JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.')
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [{name: _text(row.get(name)) for name in columns} for row in rows]
    return Table(columns, cells, list(range(1, len(rows) + 1)))


def _read_text(file: Path) -> list[tuple[int, list[str]]]:
    content = file.read_bytes()
    text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    if text.count("\0") > len(text) // 4:  # UTF-16 without its mark
        raise ValueError
    lines = io.StringIO(text, newline="")
    first = lines.readline()
    stated = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
    lines.seek(0 if stated is None else lines.tell())
    delimiter = stated[1] if stated else _delimiter(first, file.suffix.lower())
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    return [(number, [cell.strip() for cell in row]) for number, row in enumerate(reader, 2 if stated else 1)]


def _delimiter(first: str, suffix: str) -> str:
    """Return the delimiter of a table: the one that divides its first row into most cells, a comma of equal ones."""
    if suffix == ".tsv":
        return "\t"
    return max(",;\t", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))


def _read_excel(file: Path) -> list[tuple[int, list[str]]]:
    book = openpyxl.load_workbook(io.BytesIO(file.read_bytes()), read_only=True, data_only=True)
    try:
        rows: Iterable[tuple[Any, ...]] = book.worksheets[0].iter_rows(values_only=True)
        return [(number, [_text(cell) for cell in row]) for number, row in enumerate(rows, 1)]
    finally:
        book.close()


def _text(cell: Any) -> str:
    is_whole = isinstance(cell, float) and cell.is_integer()
    return "" if cell is None else str(int(cell) if is_whole else cell).strip()


def _trim(row: list[str]) -> list[str]:
    """Remove the empty cells at the end of a row, which spreadsheets often add."""
    last = max((i for i, cell in enumerate(row) if cell), default=-1)
    return row[: last + 1]


def _check_columns(columns: list[str], name: str) -> None:
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if "" in columns or repeated:
        raise ValueError(f"columns must have distinct names, got {repeated or columns} in {name!r}.")
