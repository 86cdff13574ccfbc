"""Tests of the table of labels in SQLite."""

import threading

import pytest

from monai_mil_ext.apps.label.server import LabelTable


def test_label_table_keeps_values_of_several_writers(tmp_path):
    """Each has a connection of its own, as several processes have."""

    def write(writer):
        table = LabelTable(tmp_path / "folder" / "labels.sqlite")
        for number in range(20):
            table.update("1.2", {f"{writer}_{number}": number})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{writer}_{number}": number for writer in "abcd" for number in range(20)}
    assert LabelTable(tmp_path / "folder" / "labels.sqlite").info("1.2") == expected


def test_label_table_lists_labeled_images(tmp_path):
    table = LabelTable(tmp_path / "labels.sqlite")
    table.update("1.2", {"bag_label": 0, "reader": None})
    table.update("1.3", {"bag_label": 1})
    table.update("1.3", {"bag_label": None})
    assert table.images("bag_label") == ["1.2"]
    assert table.info("1.3") == {"bag_label": None}


def test_label_table_changes_nothing_if_one_value_fails(tmp_path):
    table = LabelTable(tmp_path / "labels.sqlite")
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        table.update("1.2", {"bag_label": 0, "circle": circle})
    assert table.info("1.2") == {}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_label_table_refuses_numbers_that_are_not_finite(tmp_path, number):
    table = LabelTable(tmp_path / "labels.sqlite")
    table.update("a", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        table.update("a", {"x": 2, "y": {"z": [number]}})
    assert table.info("a") == {"x": 1}
