"""Tests of gathering rows of all ranks, each bag once."""

import ignite.distributed as idist
import pytest

from monai_mil_ext.handlers.savers.gather import gather_rows, merge_rows


def case_id(row):
    return row[0]


def content(row):
    return row[1:]


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_merge_rows_restores_the_order_of_the_dataset(num_ranks):
    rows = [(str(i), i) for i in range(7)]
    padded = rows + rows[: -len(rows) % num_ranks]  # as a DistributedSampler deals them out
    assert merge_rows([padded[rank::num_ranks] for rank in range(num_ranks)], case_id, content) == rows


def test_merge_rows_keeps_rows_without_case_id_and_repeats_of_one_rank():
    assert merge_rows([[("", 0), ("a", 1), ("a", 2)], [("", 0), ("a", 2.0001)]], case_id, content) == [
        ("", 0),
        ("", 0),
        ("a", 1),
        ("a", 2),
    ]


@pytest.mark.parametrize("other", [("a", 3), ("a", 1, 0), ("a", float("nan"))])
def test_merge_rows_loses_no_bag_whose_case_id_another_rank_has(other):
    with pytest.raises(ValueError, match="`case_id` must be the name of one bag, got 'a' for different bags"):
        merge_rows([[("a", 1)], [other]], case_id, content)


def test_gather_rows_of_one_process_are_its_own(monkeypatch):
    rows = [("a", 1), ("a", 2)]
    assert gather_rows(rows, case_id, content) == rows
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "all_gather", lambda part: [part, [("a", 2), ("b", 4)]])
    assert gather_rows(rows, case_id, content) == [("a", 1), ("a", 2), ("b", 4)]
