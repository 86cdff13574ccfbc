"""Tests of the classical MIL data sets: from the rows of their files to bag files and a table."""

import doctest
import io

import numpy as np
import pytest

from monai_mil_ext.data import load_cohort, read_bag
from monai_mil_ext.data.bags.bag_file import read_attributes
from tests.bundles.small_bags import BUNDLE, scripts

SIZES = {"musk1": (92, 47, 476, 166), "musk2": (102, 39, 6598, 166), "elephant": (200, 100, 1391, 230)}
SIZES |= {"ucsb": (58, 26, 2002, 708)}
ROWS = "1,3,0.5,-2\n1,3,1.5,3\n0,11,4,5\n1,2,6,7\n1,2,8,9\n1,2,-1,0\n"


def test_write_cohort_writes_bag_files_and_a_table(tmp_path):
    prepare = scripts("prepare")
    prepare.write_cohort(prepare.read_bags(io.StringIO(ROWS)), tmp_path / "cohort.csv")
    items = load_cohort(tmp_path / "cohort.csv")
    assert [item["label"] for item in items] == [1, 0, 1]
    assert [item["num_instances"] for item in items] == [2, 1, 3]
    assert len({item["patient"] for item in items}) == 3
    assert read_bag(items[2]["image"])["features"].tolist() == [[6, 7], [8, 9], [-1, 0]]
    assert [read_attributes(item["image"])["source_bag"] for item in items] == ["3", "11", "2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,3,0.5\n1,4,nan\n", "`text` must hold finite numbers, got others in row 2"),
        ("1,3,0.5\n0,3,0.5\n", r"a bag must have one label, got \[0.0, 1.0\] for bag 3"),
    ],
)
def test_read_bags_names_invalid_rows(rows, message):
    with pytest.raises(ValueError, match=message):
        scripts("prepare").read_bags(io.StringIO(rows))


def test_prepare_doctests_pass():
    assert doctest.testmod(scripts("prepare")) == (0, 2)


def test_prepare_classical_names_an_unknown_set_and_fetches_once(tmp_path, monkeypatch):
    prepare = scripts("prepare")
    with pytest.raises(ValueError, match="`name` must be one of 'musk1', 'musk2', 'elephant', 'ucsb', got 'fox'"):
        prepare.prepare_classical("fox", tmp_path)
    prepare.write_cohort(prepare.read_bags(io.StringIO(ROWS)), tmp_path / "musk1" / "cohort.csv")
    monkeypatch.setattr(prepare, "fetch_packages", None)
    assert prepare.prepare_classical("musk1", tmp_path) == tmp_path / "musk1" / "cohort.csv"


@pytest.mark.network
@pytest.mark.slow(buys="the public data sets are read as published")
@pytest.mark.parametrize("name", list(SIZES))
def test_prepare_classical_gives_sets_of_the_published_sizes(name):
    try:
        table = scripts("prepare").prepare_classical(name, BUNDLE / "data")
    except RuntimeError as error:
        pytest.skip(str(error))
    items = load_cohort(table)
    labels = [item["label"] for item in items]
    width = np.shape(read_bag(items[0]["image"])["features"])[1]
    assert (len(items), sum(labels), sum(item["num_instances"] for item in items), width) == SIZES[name]
