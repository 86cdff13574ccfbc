"""Tests of cohorts whose table, features, scans and slides lie in object stores."""

import numpy as np
import pytest

from monai_mil_ext.apps.check import CheckSettings, check_table
from monai_mil_ext.data import (
    CohortChecks,
    CohortColumns,
    CohortSplits,
    check_cohort,
    list_bags,
    list_scans,
    list_slides,
    load_cohort,
    write_bag,
)
from monai_mil_ext.data.bags.bag_folder import BagFolder
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils.remote import ObjectPath

HEAD = "case_id,patient,image,label\n"


def write_bags(root, names):
    for i, name in enumerate(names):
        write_bag(f"{root}/{name}", {"features": np.full((3 + i, 2), i, np.float32)})


def texts(issues):
    return [str(issue) for issue in issues]


def test_a_table_in_s3_names_bags_by_path_address_or_name(s3):
    write_bags(s3.root, ["features/a.h5", "features/b.h5", "features/c.h5", "d.zarr.h5"])
    rows = ["a,p,features/a.h5,0", f"b,q,{s3.root}/features/b.h5,1", "c,r,c.h5,0"]
    ObjectPath(f"{s3.root}/cohort.csv").write_bytes((HEAD + "\n".join(rows)).encode())
    items = load_cohort(f"{s3.root}/cohort.csv")
    assert [item["image"] for item in items] == [f"{s3.root}/features/{name}.h5" for name in "abc"]
    assert [item["num_instances"] for item in items] == [3, 4, 5]
    report = check_cohort(f"{s3.root}/cohort.csv")
    assert texts(report.notes) == ["bag files that are not in the table: 'd.zarr.h5'"]
    check = check_table(f"{s3.root}/cohort.csv", CheckSettings("bags", num_folds=2))
    assert [row["status"] for row in check.rows] == ["ok"] * 3
    splits = CohortSplits([{"train": ["a"], "val": ["b"], "test": ["c"]}], {"a": "p", "b": "q", "c": "r"})
    splits.write(f"{s3.root}/splits.json")
    assert CohortSplits.read(f"{s3.root}/splits.json").folds == splits.folds


def test_a_local_table_reads_features_below_an_address(memory, tmp_path):
    write_bags(memory, ["features/a.h5", "features/b.h5"])
    rows = [f"a,p,{memory}/features/a.h5,0", "b,q,b.h5,1"]
    (tmp_path / "cohort.csv").write_text(HEAD + "\n".join(rows))
    items = load_cohort(tmp_path / "cohort.csv", root=f"{memory}/features")
    assert [item["image"] for item in items] == [f"{memory}/features/{name}.h5" for name in "ab"]


def test_bad_rows_do_not_end_the_check_of_a_table(s3):
    write_bags(s3.root, ["features/a.h5", "features/b.h5"])
    ObjectPath(f"{s3.root}/features/cut.h5").write_bytes(ObjectPath(f"{s3.root}/features/b.h5").read_bytes()[:900])
    names = ["a.h5", "cut.h5", "lost.h5", "../b.h5", "s3://another/c.h5", "/etc/passwd.h5", f"{s3.root}/cohort.csv.h5"]
    rows = [f"{i},{i},{name},0" for i, name in enumerate(names)]
    ObjectPath(f"{s3.root}/cohort.csv").write_bytes((HEAD + "\n".join(rows)).encode())
    report = check_cohort(f"{s3.root}/cohort.csv", CohortColumns(), CohortChecks(), f"{s3.root}/features")
    assert [item["case_id"] for item in report.items] == ["0"]
    rule = "must lie below `root`, got an address or a path out of it: give the address of its folder as --root"
    assert texts(report.errors) == [
        "row 3, '1': `path` must be an undamaged bag file, got the file.",
        "row 4, '2': `bag` must be the path or the name of a file below `root`, got none",
        f"row 5, '3': `bag` {rule}",
        f"row 6, '4': `bag` {rule}",
        f"row 7, '5': `bag` {rule}",
        f"row 8, '6': `bag` {rule}",
    ]


def test_a_store_is_asked_for_the_names_of_a_cohort_once(memory, monkeypatch):
    write_bags(memory, [f"features/{i}.h5" for i in range(20)])
    calls, sizes = [], ObjectPath.sizes
    monkeypatch.setattr(ObjectPath, "sizes", lambda self: calls.append(self) or sizes(self))
    folder = BagFolder(f"{memory}/features")
    assert [folder.find(f"{i}.h5").name for i in range(20)] == [f"{i}.h5" for i in range(20)]
    assert len(calls) == 1


def test_files_of_a_store_follow_the_rules_of_folders(memory):
    names = [
        "a.h5",
        "x/b.pt",
        "x/model.json",
        "patches/p.h5",
        ".hidden/c.h5",
        "z.zarr/zarr.json",
        "z.zarr/c/0",
        "n.txt",
    ]
    names += ["out/prediction.json", "out/d.h5"]
    for name in names:
        (ObjectPath(memory) / name).write_bytes(b"x")
    assert [str(path) for path in BagFolder(memory).files] == [f"{memory}/a.h5", f"{memory}/z.zarr"]
    assert BagFolder(memory).find("z").name == "z.zarr"
    with pytest.raises(FileNotFoundError, match="`root` must be a folder that exists, got 'none'"):
        BagFolder(f"{memory}/none")


def test_lists_for_inference_take_addresses(memory):
    write_bags(memory, ["features/a.h5", "features/b.h5"])
    expected = [{"case_id": name, "image": f"{memory}/features/{name}.h5"} for name in "ab"]
    assert list_bags(f"{memory}/features") == list_slides(f"{memory}/features") == expected
    single = list_bags(f"{memory}/features/a.h5")[0]
    assert single["case_id"].startswith("case-")
    assert single["case_id"] != list_bags(f"{memory}/features/b.h5")[0]["case_id"]
    with pytest.raises(FileNotFoundError, match="`path` must be a feature file, a folder or a table that exists"):
        list_bags(f"{memory}/none")


def test_scans_of_a_store_are_read_from_a_copy(s3, tmp_path):
    import nibabel

    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1])).to_filename(tmp_path / "a.nii.gz")
    ObjectPath(f"{s3.root}/a.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    ObjectPath(f"{s3.root}/scans.csv").write_bytes(b"case_id,image\na,a.nii.gz\nb,../b.nii.gz\n")
    good, bad = list_scans(f"{s3.root}/scans.csv")
    assert (good["image"], bad["image"]) == (f"{s3.root}/a.nii.gz", "")
    assert "must lie below `root`" in bad["input_error"]
    scan = LoadScan()(good["image"])
    assert np.array_equal(np.asarray(scan).squeeze(), voxels)
    check = check_table(f"{s3.root}/scans.csv", CheckSettings("scans"))
    assert check.rows[0]["status"] == "ok"
