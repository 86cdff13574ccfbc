"""Table of labels and other notes on images, in a file of SQLite beside the app."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["LabelTable", "SqliteTable"]

SCHEMA = "CREATE TABLE IF NOT EXISTS info (image TEXT, name TEXT, value TEXT, PRIMARY KEY (image, name))"
PATIENCE = 30  # seconds to wait for another process


class SqliteTable:
    """Table in a file of SQLite, which several processes may change at the same time.

    Args:
        file: file of the table; it is created with its folder.
    """

    schema = ""  # statements that create the table where it is missing

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as table:
            table.executescript(self.schema)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.file, timeout=PATIENCE)) as table, table:
            yield table


class LabelTable(SqliteTable):
    """Table with a value for each image and name, which several processes may change at the same time.

    Args:
        file: file of the table; it is created with its folder.

    Example:
        >>> table = LabelTable("labels.sqlite")
        >>> table.update("1.2.3", {"bag_label": 1})
        >>> table.info("1.2.3"), table.info("1.2.4")
        ({'bag_label': 1}, {})
    """

    schema = SCHEMA

    def info(self, image: str) -> dict[str, Any]:
        """Return the values of an image by name."""
        with self._open() as table:
            rows = table.execute("SELECT name, value FROM info WHERE image = ?", (image,)).fetchall()
        return {name: json.loads(value) for name, value in rows}

    def update(self, image: str, info: Mapping[str, Any]) -> None:
        """Set values of an image; others stay.

        Raises:
            ValueError: for a number that is not finite.
        """
        rows = [(image, name, json.dumps(value, default=str, allow_nan=False)) for name, value in info.items()]
        with self._open() as table:
            table.executemany("INSERT OR REPLACE INTO info VALUES (?, ?, ?)", rows)

    def images(self, name: str) -> list[str]:
        """Return the images that have a value of this name other than null."""
        with self._open() as table:
            rows = table.execute("SELECT image FROM info WHERE name = ? AND value != 'null' ORDER BY image", (name,))
            return [image for (image,) in rows.fetchall()]
