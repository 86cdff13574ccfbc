"""Reader of tables: CSV, TSV and Excel."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.utils import check_choice, check_local, optional_dependency

__all__ = ["TABLE_SUFFIXES", "Table", "read_table"]

openpyxl = optional_dependency("excel", "openpyxl")

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")


class Table(NamedTuple):
    """Column names and rows of a table, and the number of each row as in a spreadsheet, from 2."""

    columns: list[str]
    rows: list[dict[str, str]]
    numbers: list[int]


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table whose first row holds the column names; cells are text without surrounding whitespace.

    ``.csv`` is separated by commas, or by semicolons if the first row has no comma; ``.tsv`` by tabs; of ``.xlsx`` the
    first sheet is read. Empty rows are ignored. Text is not converted, so ``007`` stays ``007``; whole numbers of a
    spreadsheet get no decimal point.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when openpyxl, which Excel files need, is not installed.
        ValueError: when the file is not such a table, has no row, unnamed columns or repeated names, or a row with more
            cells than columns.
    """
    check_local(path=path)
    file = Path(path)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"`path` must be a table that exists, got {file.name!r}.")
    check_choice("path", file.suffix.lower(), TABLE_SUFFIXES)
    try:
        cells = _read_excel(file) if file.suffix.lower() == ".xlsx" else _read_text(file)
    except ImportError:
        raise
    except Exception:  # of many kinds for a damaged workbook
        raise ValueError(f"`path` must be a readable table in UTF-8 or Excel's .xlsx, got {file.name!r}.") from None
    filled = [(number, row) for number, row in cells if any(row)]
    if len(filled) < 2:
        raise ValueError(
            f"`path` must be a table with column names and a row, got {len(filled)} rows in {file.name!r}."
        )
    columns = _trim(filled[0][1])
    _check_columns(columns, file.name)
    long = [number for number, row in filled if len(_trim(row)) > len(columns)]
    if long:
        raise ValueError(
            f"rows must have at most the {len(columns)} cells of row 1, got more in {long} of {file.name!r}."
        )
    rows = [dict(zip(columns, [*row, *[""] * len(columns)], strict=False)) for _, row in filled[1:]]
    return Table(columns, rows, [number for number, _ in filled[1:]])


def _read_text(file: Path) -> list[tuple[int, list[str]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
        lines.seek(0)
        comma = ";" if ";" in first and "," not in first else ","
        reader = csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else comma, strict=True)
        return [(number, [cell.strip() for cell in row]) for number, row in enumerate(reader, 1)]


def _read_excel(file: Path) -> list[tuple[int, list[str]]]:
    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
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
