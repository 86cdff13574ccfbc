"""Tests of gathering rows of all ranks, each bag once."""

import ignite.distributed as idist
import pytest

from monai_mil_ext.handlers.savers.gather import gather_rows, merge_rows


def case_id(row):
    return row[0]


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_merge_rows_restores_the_order_of_the_dataset(num_ranks):
    rows = [(str(i), i) for i in range(7)]
    padded = rows + rows[: -len(rows) % num_ranks]  # as a DistributedSampler deals them out
    assert merge_rows([padded[rank::num_ranks] for rank in range(num_ranks)], case_id) == rows


def test_merge_rows_keeps_rows_without_case_id_and_repeats_of_one_rank():
    assert merge_rows([[("", 0), ("a", 1), ("a", 2)], [("", 0), ("a", 3)]], case_id) == [
        ("", 0),
        ("", 0),
        ("a", 1),
        ("a", 2),
    ]


def test_gather_rows_of_one_process_are_its_own(monkeypatch):
    rows = [("a", 1), ("a", 2)]
    assert gather_rows(rows, case_id) == rows
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "all_gather", lambda part: [part, [("a", 3), ("b", 4)]])
    assert gather_rows(rows, case_id) == [("a", 1), ("a", 2), ("b", 4)]
