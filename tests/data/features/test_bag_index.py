"""Tests of the index of a store of bag files."""

import json
import os
import shutil

import pytest

from monai_mil_ext.data import BagIndex

VALUES = {"num_instances": 3, "encoder": "uni_v1"}


@pytest.fixture
def store(tmp_path):
    """A store with one file and its index."""
    (tmp_path / "a/DOE_JOHN.h5").parent.mkdir()
    (tmp_path / "a/DOE_JOHN.h5").write_text("bag")
    with BagIndex(tmp_path / "index.json") as index:
        index.add(tmp_path / "a/DOE_JOHN.h5", VALUES, ["features"])
    return tmp_path


def find(store, checked=(), name="a/DOE_JOHN.h5"):
    with BagIndex(store / "index.json") as index:
        return index.find(store / name, list(checked))


def test_an_index_knows_a_file_until_it_changes(store):
    assert find(store) == find(store, ["features"]) == VALUES
    assert find(store, ["coords"]) is None  # which were not checked
    state = os.stat(store / "a/DOE_JOHN.h5")
    os.utime(store / "a/DOE_JOHN.h5", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert find(store) is None
    os.utime(store / "a/DOE_JOHN.h5", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert find(store) == VALUES
    (store / "a/DOE_JOHN.h5").write_text("bags")
    os.utime(store / "a/DOE_JOHN.h5", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert find(store) is None


def test_an_index_moves_with_its_store_and_shows_no_name(store, tmp_path_factory):
    place = tmp_path_factory.mktemp("other") / "store"
    shutil.copytree(store, place)  # which keeps the times of modification
    assert find(place) == VALUES
    assert "DOE" not in (store / "index.json").read_text()
    (store / "a/DOE_JOHN.h5").rename(store / "a/b.h5")
    assert find(store, name="a/b.h5") is None


def test_an_index_of_another_version_is_not_used_and_other_files_are_refused(store, monkeypatch):
    content = json.loads((store / "index.json").read_text())
    (store / "index.json").write_text(json.dumps({**content, "version": "0.0.1"}))
    assert find(store) is None
    for text in ('{"cases": 3}', "[1]", "bag,label\n"):
        (store / "index.json").write_text(text)
        with pytest.raises(ValueError, match=r"`index` must be an index of bag files, got 'index\.json'"):
            find(store)
        assert (store / "index.json").read_text() == text


def test_a_folder_is_not_added(store):
    with BagIndex(store / "index.json") as index:
        index.add(store / "a", VALUES, [])
        assert index.find(store / "a", []) is None


def test_an_interrupted_run_leaves_what_it_has_found(store, monkeypatch):
    monkeypatch.setattr("monai_mil_ext.data.features.bag_index.MAX_WRITES", 1)
    (store / "b.h5").write_text("bag")

    def interrupted():
        with BagIndex(store / "index.json") as index:
            index.add(store / "b.h5", VALUES, [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert find(store, name="b.h5") == VALUES
