"""Tests of features that are computed into an object store."""

import csv
import io
import json

from monai_mil_ext.data import FeatureExtraction, read_bag
from monai_mil_ext.data.bags.bag_file import read_attributes
from monai_mil_ext.data.features.feature_cache import FeatureCache
from monai_mil_ext.utils.remote import ObjectPath, StoreError
from tests.data.features.extraction_runs import Encode, scans
from tests.utils.dask_clusters import cluster


def make_run(root, log, **options):
    log.mkdir(exist_ok=True)
    cache = FeatureCache(f"{root}/features", Encode(str(log)), fingerprint="f" * 64, attributes={"encoder": "net"})
    return FeatureExtraction(cache, f"{root}/out", progress=False, **options)


def stored(root):
    return {str(path.relative_to(ObjectPath(root))): path.read_bytes() for path in ObjectPath(root).sizes()}


def test_features_in_a_store_equal_local_ones_and_are_computed_once(s3, tmp_path):
    items = scans(3)
    local, remote = make_run(tmp_path, tmp_path / "a"), make_run(s3.root, tmp_path / "b")
    assert (local(items)["made"], remote(items)["made"]) == (3, 3)
    folder = "features/" + "f" * 12
    names = [f"{folder}/bags.csv", *(f"{folder}/c{i}.h5" for i in range(3)), "out/features.json"]
    found = stored(s3.root)
    assert sorted(found) == sorted(names)
    for name in names[:-1]:
        assert found[name] == (tmp_path / name).read_bytes()
    report = make_run(s3.root, tmp_path / "c")(scans(4))
    assert (report["done_before"], report["made"]) == (3, 1)
    assert [path.name[:2] for path in (tmp_path / "c").iterdir()] == ["c3"]
    assert [row["bag"] for row in csv.DictReader(io.StringIO(stored(s3.root)[names[0]].decode()))][3] == "c3.h5"


def test_files_of_a_store_are_listed_once(memory, tmp_path, monkeypatch):
    run, asked = make_run(memory, tmp_path / "log"), []
    run([*scans(2)])
    monkeypatch.setattr(
        "monai_mil_ext.data.features.feature_cache.read_attributes",
        lambda path: asked.append(path.name) or read_attributes(path),
    )
    assert [item["case_id"] for item in run.cache.missing(scans(9))] == [f"c{i}" for i in range(2, 9)]
    assert set(asked[:2]) == {"c0.h5", "c1.h5"}


def test_an_upload_that_breaks_off_leaves_no_features(memory, tmp_path, monkeypatch):
    upload = ObjectPath.upload

    def refuse(self, file):
        if self.name == "c1.h5":
            raise StoreError("`path` must lie in a store that answers, got none.")
        upload(self, file)

    monkeypatch.setattr(ObjectPath, "upload", refuse)
    report = make_run(memory, tmp_path / "log")(scans(3))
    assert (report["made"], report["failed"], [*report["reasons"].values()]) == (2, 1, [["c1"]])
    assert not any(name.endswith("c1.h5") for name in stored(memory))
    monkeypatch.setattr(ObjectPath, "upload", upload)
    assert make_run(memory, tmp_path / "log")(scans(3))["made"] == 1


def test_dask_workers_encode_to_a_store(s3, tmp_path):
    with cluster({}, {}) as address:
        report = make_run(s3.root, tmp_path / "log", scheduler=address)(scans(4))
    assert report["made"] == 4
    assert read_bag(f"{s3.root}/features/{'f' * 12}/c3.h5")["features"].tolist() == [[3.0, 3.0]] * 3
    assert json.loads(stored(s3.root)["out/features.json"])["scans"] == 4
