"""Tests of the attention and pictures of the cases of a report."""

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study.pictures import PICTURES, add_pictures, bag_attention, pictured_rows
from monai_mil_ext.data import write_bag
from monai_mil_ext.networks.nets import ABMIL, BagNet, BagOutput


class WithoutAttention(BagNet):
    """Network that has no attention."""

    def forward_bag(self, x, mask=None):
        """Return constant logits."""
        return BagOutput(torch.zeros(1, 2), None, None, None)


def cohort(folder, count, **arrays):
    """Items of bags whose numbers of instances are 3, 4, ..., and rows with their errors, the greatest first."""
    items, rows = [], []
    for i in range(count):
        path = folder / f"{i}.h5"
        write_bag(path, {"features": torch.randn(3 + i, 4), "position": torch.arange(3.0 + i), **arrays})
        items.append({"case_id": f"c{i}", "image": str(path)})
        rows.append({"case_id": f"c{i}", "error": 1 - i / count, "fold": i % 2})
    return items, rows


def test_the_attention_of_a_row_is_that_of_its_network(tmp_path):
    items, rows = cohort(tmp_path, 4)
    nets = [ABMIL(4, 2).eval() for _ in range(2)]
    add_pictures(rows, items[::-1], lambda row: nets[row["fold"]])
    for i, row in enumerate(rows):
        expected = bag_attention(nets[i % 2], items[i])
        assert row["attention"] == pytest.approx(expected["attention"])
        assert row["attention"].sum() == pytest.approx(1)
        assert row["position"].tolist() == list(range(3 + i))
        assert "pictures" not in row


def test_the_greatest_and_the_smallest_errors_have_pictures(tmp_path):
    items, rows = cohort(tmp_path, 30)
    asked = []

    def draw(item, attention):
        asked.append(item["case_id"])
        assert len(attention) == 3 + int(item["case_id"][1:])
        return [] if item["case_id"] == "c1" else [b"\xff\xd8 picture"]

    add_pictures(rows, items, lambda _: ABMIL(4, 2).eval(), draw)
    assert asked == ["c0", "c1", "c2", "c3", "c4", "c28", "c29"]  # 7 of 30: five of the greatest, two of the smallest
    assert [row["case_id"] for row in rows if row.get("pictures")] == ["c0", "c2", "c3", "c4", "c28", "c29"]
    assert [i for i, row in enumerate(rows) if "attention" in row] == list(range(PICTURES))


def test_networks_without_attention_and_missing_networks_have_no_pictures(tmp_path):
    items, rows = cohort(tmp_path, 4)
    nets = {0: WithoutAttention(), 1: None}
    add_pictures(rows, items, lambda row: nets[row["fold"]], lambda *_: pytest.fail("drawn"))
    assert not any({"attention", "pictures"} & row.keys() for row in rows)


def test_rows_are_divided_without_overlap():
    for count in (0, 1, 2, 5, 12, 100, 1000):
        rows = [{"case_id": str(i), "error": float(np.exp(-i))} for i in range(count)] + [
            {"case_id": "x", "error": None}
        ]
        greatest, smallest = pictured_rows(rows)
        named = [row["case_id"] for row in greatest + smallest]
        assert len(set(named)) == len(named) == min(count, max(3, min(12, count // 4)))
        assert [row["case_id"] for row in greatest] == [str(i) for i in range(len(greatest))]
        assert "x" not in named
