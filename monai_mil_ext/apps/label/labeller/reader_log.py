"""Log of what readers were shown and how they labeled, which can only grow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from monai_mil_ext.apps.label.server.label_table import SqliteTable

__all__ = ["ReaderLog"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS reader_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT, reader TEXT, image TEXT, event TEXT, detail TEXT
);
CREATE TRIGGER IF NOT EXISTS reader_log_keeps BEFORE DELETE ON reader_log
BEGIN SELECT RAISE(ABORT, 'the log can only grow'); END;
CREATE TRIGGER IF NOT EXISTS reader_log_stays BEFORE UPDATE ON reader_log
BEGIN SELECT RAISE(ABORT, 'the log can only grow'); END;
"""
EVENTS = ("opened", "answer", "label", "send")


class ReaderLog(SqliteTable):
    """Log in a table of SQLite whose entries can't be changed or deleted.

    Args:
        file: file of the table; it is created with its folder.

    Example:
        >>> log = ReaderLog("labels.sqlite")
        >>> log.add("Ann", "scan_1", "label", label="tumor")
        >>> [(entry["reader"], entry["label"]) for entry in log.entries()], log.saw_answer("Ann", "scan_1")
        ([('Ann', 'tumor')], False)
    """

    schema = SCHEMA

    def add(self, reader: str, image: str, event: str, **detail: Any) -> None:
        """Add an entry with the time of now (UTC).

        Args:
            reader: name of the reader.
            image: ID of the image.
            event: ``"opened"``, ``"answer"`` (shown to the reader), ``"label"`` or ``"send"``.
            **detail: further values of the entry.
        """
        if event not in EVENTS:
            raise ValueError(f"`event` must be one of {EVENTS}, got {event!r}.")
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = (time, reader, image, event, json.dumps(detail))
        with self._open() as table:
            table.execute("INSERT INTO reader_log (time, reader, image, event, detail) VALUES (?, ?, ?, ?, ?)", row)

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries, the oldest first."""
        with self._open() as table:
            rows = table.execute("SELECT time, reader, image, event, detail FROM reader_log ORDER BY number").fetchall()
        names = ("time", "reader", "image", "event")
        return [{**dict(zip(names, row[:4], strict=True)), **json.loads(row[4])} for row in rows]

    def saw_answer(self, reader: str, image: str) -> bool:
        """Return whether a reader was ever shown the answer of a model for an image."""
        with self._open() as table:
            query = "SELECT 1 FROM reader_log WHERE reader = ? AND image = ? AND event = 'answer' LIMIT 1"
            return table.execute(query, (reader, image)).fetchone() is not None
