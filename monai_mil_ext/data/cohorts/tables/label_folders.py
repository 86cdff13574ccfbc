"""Labels of a table that lie in folders beside it, with a file for each bag, as in the data sets of torchmil."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from monai_mil_ext.data.bags.folder_layout import file_name
from monai_mil_ext.data.bags.label_files import read_bag_label
from monai_mil_ext.data.cohorts.columns import PARTS, CohortColumns
from monai_mil_ext.data.cohorts.table_file import Table

__all__ = ["add_label_files"]

LABELS, INSTANCE_LABELS = "labels", ("slice_labels", "patch_labels", "inst_labels")
MAX_NAMES = 5  # of bags in a note


def add_label_files(
    table: Table, columns: CohortColumns, folder: Path, notes: Sequence[str]
) -> tuple[Table, CohortColumns, list[str]]:
    """Add the columns of labels to a table that has none, from the folders beside it.

    The label of a bag is the number in ``labels/<bag>.npy``; labels of its instances are the file of that name in
    ``slice_labels``, ``patch_labels`` or ``inst_labels``. The folders lie beside the table, or together in one folder
    beside it. Rows that are repeated, such as once for each slice, become one. A bag that is in the training and in the
    test part is only tested.

    Args:
        table: the table.
        columns: its columns, of which ``label`` is the default.
        folder: folder of the table.
        notes: notes so far.

    Returns:
        Table, columns and notes, unchanged if the table has labels or there are no such folders.

    Example:
        >>> import numpy as np
        >>> for name, values in (("labels", [1]), ("slice_labels", [0, 1, 1])):
        ...     Path(name).mkdir()
        ...     np.save(Path(name, "a.npy"), np.array(values))
        >>> splits = Table(["bag_name", "split"], [{"bag_name": "a", "split": "train"}], [2])
        >>> found = add_label_files(splits, CohortColumns("bag_name", split="split"), Path("."), [])
        >>> found[0].rows[0]["label"], found[0].rows[0]["instance_label"]
        ('1', 'slice_labels/a.npy')
    """
    is_given = columns.label != "label" or columns.time is not None or columns.label in table.columns
    place = None if is_given else _find_folders(folder)
    if place is None or columns.bag not in table.columns:
        return table, columns, list(notes)
    table, more = _one_row_a_bag(table, columns)
    of_instances = next((name for name in INSTANCE_LABELS if (place / name).is_dir()), None)
    names = [LABELS] if of_instances is None else [LABELS, of_instances]
    more.insert(0, f"labels are those of the files in {' and '.join(map(repr, names))}")
    headers = ["label"] if of_instances is None else ["label", "instance_label"]
    rows, lost = [], []
    for row in table.rows:
        file = re.sub(r"\.npy$", "", file_name(row[columns.bag])) + ".npy"
        cells = {"label": _label(place / LABELS / file)}
        if of_instances is not None:
            labels = place / of_instances / file
            cells["instance_label"] = labels.relative_to(folder).as_posix() if labels.is_file() else ""
        if "" in cells.values():
            lost.append(row[columns.bag])
        rows.append({**row, **cells})
    if lost:
        more.append(f"{len(lost)} bags have no file of labels that can be read: {_listed(lost)}")
    found = replace(columns, instance_label=None if of_instances is None else "instance_label")
    return Table([*table.columns, *headers], rows, table.numbers), found, [*notes, *more]


def _find_folders(folder: Path) -> Path | None:
    """Return the folder with the folders of labels: that of the table, or the only one below it."""
    if (folder / LABELS).is_dir():
        return folder
    below = sorted(path.parent for path in folder.glob(f"*/{LABELS}") if path.is_dir())
    return below[0] if len(below) == 1 else None


def _label(file: Path) -> str:
    try:
        return str(read_bag_label(file))
    except (FileNotFoundError, ValueError):
        return ""


def _one_row_a_bag(table: Table, columns: CohortColumns) -> tuple[Table, list[str]]:
    """Return the table without repeated rows, and without the training rows of bags that are tested, and notes."""
    first: dict[tuple[str, ...], int] = {}
    for i, row in enumerate(table.rows):
        first.setdefault(tuple(row.values()), i)
    kept = list(first.values())
    notes = [f"{len(table.rows) - len(kept)} repeated rows are not used"] if len(kept) < len(table.rows) else []
    split = columns.split
    if split is None:
        return _select(table, kept), notes
    rows = {i: (table.rows[i][columns.bag], PARTS.get(table.rows[i][split].lower())) for i in kept}
    parts = Counter(name for name, _ in rows.values())
    tested = {name for name, part in rows.values() if part == "test" and parts[name] > 1}
    if tested:
        notes.append(f"{len(tested)} bags are in two parts, and only tested: {_listed(sorted(tested))}")
    return _select(table, [i for i, (name, part) in rows.items() if part == "test" or name not in tested]), notes


def _select(table: Table, chosen: Iterable[int]) -> Table:
    chosen = list(chosen)
    return Table(table.columns, [table.rows[i] for i in chosen], [table.numbers[i] for i in chosen])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(map(repr, names[:MAX_NAMES]))}{more}"
