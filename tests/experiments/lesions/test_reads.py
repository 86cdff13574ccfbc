"""Tests of the log of test sets."""

import json

import pytest


def test_a_test_set_is_read_once_unless_a_reason_is_given(tmp_path):
    from experiments.lesions.reads import log_reads

    log = tmp_path / "reads.jsonl"
    log_reads([("one", 1), ("two", 1)], "ABMIL", log=log)
    with pytest.raises(RuntimeError, match="`again` must say why 'two' of seed 1 is read once more, after 2"):
        log_reads([("one", 2), ("two", 1)], "ABMIL", log=log)
    log_reads([("two", 1)], "ABMIL", again="a fault was mended", log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["test"], line["seed"]) for line in lines] == [("one", 1), ("two", 1), ("two", 1)]
    assert lines[-1]["again"] == "a fault was mended"
