"""Tests of the log of readers."""

import sqlite3
from datetime import UTC, datetime

import pytest

from monai_mil_ext.apps.label.labeller import ReaderLog


def test_reader_log_tells_who_saw_the_answer_and_when(tmp_path):
    log = ReaderLog(tmp_path / "a" / "labels.sqlite")
    log.add("Ann", "s1", "label", label="tumor", answer_shown=False)
    log.add("Bob", "s1", "answer")
    log.add("Ann", "s2", "answer")
    assert [log.saw_answer("Ann", "s1"), log.saw_answer("Bob", "s1"), log.saw_answer("Ann", "s2")] == [
        False,
        True,
        True,
    ]
    first = ReaderLog(log.file).entries()[0]
    assert {name: first[name] for name in first if name != "time"} == {
        "reader": "Ann", "image": "s1", "event": "label", "label": "tumor", "answer_shown": False,
    }  # fmt: skip
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first["time"])).total_seconds()) < 60


@pytest.mark.parametrize("change", ["DELETE FROM reader_log", "UPDATE reader_log SET reader = 'Eve'"])
def test_reader_log_can_only_grow(tmp_path, change):
    log = ReaderLog(tmp_path / "labels.sqlite")
    log.add("Ann", "s1", "opened")
    with sqlite3.connect(log.file) as table, pytest.raises(sqlite3.IntegrityError, match="the log can only grow"):
        table.execute(change)
    assert len(log.entries()) == 1


def test_reader_log_has_known_events_only(tmp_path):
    with pytest.raises(ValueError, match=r"`event` must be one of .*, got 'Answer'"):
        ReaderLog(tmp_path / "labels.sqlite").add("Ann", "s1", "Answer")
