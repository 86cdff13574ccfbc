"""Tests of sub_volumes: cutting of scans into bags, and folds by patient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import write_bag

LABELS = {"a": [0] * 15 + [1] * 5 + [0] * 20, "b": [0] * 30, "c": [1] * 12}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for case, labels in LABELS.items():
        write_bag(
            folder / f"{case}.h5", {"features": torch.rand(len(labels), 2), "instance_label": torch.tensor(labels)}
        )
    return [{"case_id": case, "patient": f"p_{case}", "image": str(folder / f"{case}.h5")} for case in LABELS]


@given(num_bags=st.integers(2, 60), low=st.integers(2, 8), more=st.integers(0, 5), seed=st.integers(0, 99))
def test_sub_volumes_are_positive_if_a_slice_has_tumor(scans, num_bags, low, more, seed):
    from scripts.sub_volumes import sub_volumes

    bags = sub_volumes(scans, num_bags, (low, low + more), seed)
    for bag in bags:
        labels = LABELS[bag["patient"][-1]][bag["start"] : bag["stop"]]
        assert low <= len(labels) <= low + more
        assert bag["label"] == max(labels)
    windows = [(bag["patient"], bag["start"], bag["stop"]) for bag in bags]
    assert len(set(windows)) == len({bag["case_id"] for bag in bags}) == len(bags)
    assert {bag["label"] for bag in bags if bag["patient"] == "p_b"} == {0}
    assert {bag["label"] for bag in bags if bag["patient"] == "p_c"} == {1}
    windows = [LABELS["a"][i : i + n] for n in range(low, low + more + 1) for i in range(41 - n)]
    positive = sum(bag["label"] for bag in bags if bag["patient"] == "p_a")
    assert positive == min(num_bags // 2, sum(map(any, windows)))
    assert bags == sub_volumes(scans, num_bags, (low, low + more), seed)
    assert [b for b in bags if b["patient"] == "p_c"] == sub_volumes(scans[2:], num_bags, (low, low + more), seed)


def test_sub_volumes_depend_on_the_seed(scans):
    from scripts.sub_volumes import sub_volumes

    assert sub_volumes(scans, 20, seed=0) != sub_volumes(scans, 20, seed=1)


def test_sub_volumes_of_equal_scans_differ(scans):
    from scripts.sub_volumes import sub_volumes

    twins = sub_volumes([scans[0], {**scans[0], "case_id": "a2"}], 20)
    first, second = (
        [(b["start"], b["stop"]) for b in twins if b["case_id"].startswith(f"{case}_")] for case in ("a", "a2")
    )
    assert len(first) == len(second)
    assert first != second


def test_sub_volumes_leave_one_patient_out():
    from scripts.sub_volumes import fold

    bags = [{"patient": p} for p in "aabc"]
    assert fold(bags, "a", test=True) == bags[:2]
    assert fold(bags, "a", test=False) == bags[2:]
    with pytest.raises(ValueError, match="`test_patient` must be one of 'a', 'b', 'c', got 'd'"):
        fold(bags, "d", test=True)


def test_fold_says_that_patients_have_one_class_only(caplog):
    from scripts.sub_volumes import fold

    bags = [{"patient": p, "label": int(label)} for p, label in ("a0", "a0", "b0", "b1")]
    assert len(fold(bags, "a", test=True)) == len(fold(bags, "a", test=False)) == 2
    assert caplog.messages == ["Test patient 'a' has bags of class 0 only: they have no AUROC."]
    with pytest.raises(ValueError, match="`bags` must have two classes without 'b', got class 0 only"):
        fold(bags, "b", test=False)


def test_sub_volumes_of_a_short_scan_are_none_and_it_is_logged(tmp_path, caplog):
    from scripts.sub_volumes import sub_volumes

    write_bag(tmp_path / "s.h5", {"features": torch.rand(7, 2), "instance_label": torch.zeros(7)})
    assert sub_volumes([{"case_id": "s", "patient": "p", "image": str(tmp_path / "s.h5")}]) == []
    assert caplog.messages == ["case 's' gives no bags: it has 7 slices of 8 needed"]
