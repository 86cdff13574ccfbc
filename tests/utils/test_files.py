"""Files that are never half written."""

import json
import math
import os
import stat

import pytest

from monai_mil_ext.utils import atomic_path, write_json


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a.json").write_text("old")

    def write():
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with (tmp_path / "a.txt").open() as reader:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_suffixes_are_kept_and_others_may_read(tmp_path):
    with atomic_path(tmp_path / "new" / "v.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new" / "v.nii.gz").stat().st_mode) == 0o666 & ~mask


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "r.json", {"a": math.nan, "b": [1.5, math.inf], "c": {"d": "x"}})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": None, "b": [1.5, None], "c": {"d": "x"}}
