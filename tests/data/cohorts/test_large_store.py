"""Tests of a large store of bag files: counts of what a check opens and looks up, since seconds depend on a machine."""

import os
from collections import Counter

import h5py
import numpy as np
import pytest

from monai_mil_ext.data import CohortChecks, CohortColumns, check_cohort, write_bag

FOLDERS, FILES = 10, 30
N = FOLDERS * FILES


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with sub-folders, whose files are links to a few, and its table, which gives names without folders."""
    folder, rows = tmp_path_factory.mktemp("store"), ["bag,patient,label"]
    for i in range(2):
        write_bag(folder / f"source/{i}.h5", {"features": np.full((3, 4), i, dtype=np.float32)}, {"encoder": "uni_v1"})
    for i in range(N):
        path = folder / f"features/s{i % FOLDERS}/c{i:04d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / f"source/{i % 2}.h5", path)
        rows.append(f"c{i:04d}.h5,p{i},{i % 2}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def count(monkeypatch):
    """Count the files that are opened, the folders that are listed and the paths that are looked up."""
    calls = Counter()

    def counted(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: (calls.update([name]), real(*a, **k))[1])

    counted(h5py, "File")
    for name in ("scandir", "stat"):
        counted(os, name)
    counted(os.path, "realpath")
    return calls


def check(store, **options):
    checks = CohortChecks(index=store / "index.json", **options)
    return check_cohort(store / "cohort.csv", CohortColumns(), checks, root=store / "features")


def test_a_second_check_of_a_store_opens_no_file(store, count):
    first = check(store, features=True)
    assert (len(first.items), first.errors, count["File"] >= N) == (N, [], True)
    count.clear()
    second = check(store, features=True)
    assert (second.items, second.notes) == (first.items, first.notes)
    assert count["File"] == 0
    assert count["scandir"] == FOLDERS + 1
    assert count["realpath"] <= 3 * N + 20, count
    assert count["stat"] <= 6 * N, count  # of the path in the table and of the file


def test_a_check_of_more_opens_all_and_one_of_less_none(store, count):
    check(store)
    count.clear()
    check(store, features=True, coords=True)
    assert count["File"] >= N
    count.clear()
    assert check(store, coords=True).errors == check(store, features=True).errors == []
    assert count["File"] == 0


def test_a_changed_file_is_opened_again_and_its_error_is_found_each_time(store, count):
    check(store, features=True)
    path = store / "features/s3/c0003.h5"
    path.unlink()  # or the others, which are links to the same file, would change
    write_bag(path, {"features": np.full((3, 4), np.nan, dtype=np.float32)}, {"encoder": "uni_v1"})
    for _ in range(2):
        count.clear()
        report = check(store, features=True)
        assert [error.message for error in report.errors] == ["features must be finite, got 12 NaN or infinite values"]
        assert 0 < count["File"] <= 4
    write_bag(path, {"features": np.ones((3, 4), dtype=np.float32)}, {"encoder": "uni_v1"})
    assert check(store, features=True).errors == []


def test_an_encoder_that_is_asked_for_is_compared_with_what_the_index_states(store, count):
    check(store)
    count.clear()
    report = check(store, encoder="gigapath")
    assert len(report.errors) == N
    assert "features must be of the encoder 'gigapath', got 'uni_v1'" in report.errors[0].message
    assert count["File"] == 0
