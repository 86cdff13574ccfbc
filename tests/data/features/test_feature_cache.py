"""Tests of FeatureCache: every scan once, one folder per configuration, no patient data."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd, ScaleIntensityRanged
from torch import nn

from monai_mil_ext.data import BadCasesError, FeatureCache, FeatureExtraction, read_bag, write_bag
from monai_mil_ext.data.bags.bag_file import read_attributes
from monai_mil_ext.transforms import EncodeInstancesd, LoadBagd, LoadScand, MaskToInstanceLabeld, SliceBagd
from monai_mil_ext.utils import EmptyBagError
from tests.scans import SECRETS, write_nifti, write_series

KEYS = ("image", "position", "slice_index", "affine", "spatial_shape", "label")


class Counted:
    """Transform that counts its calls."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, item):
        self.calls.append(item["case_id"])
        if item["image"] is None:
            raise ValueError("`image` must be a scan, got None.")
        return {**item, "image": torch.full((3, 2), item["image"] * self.scale)}

    calls: list = []


@pytest.fixture(autouse=True)
def _no_calls():
    Counted.calls.clear()


MANY = [{"case_id": f"c{i}", "image": float(i)} for i in range(12)]
ITEMS = [{"case_id": "a", "image": 1.0, "label": 0}, {"case_id": "b", "image": 2.0, "label": 1}]


def test_feature_cache_computes_only_missing_features(tmp_path, capfd):
    cache = FeatureCache(tmp_path, Counted())
    first = cache(ITEMS[:1])
    assert first == [{"case_id": "a", "image": str(tmp_path / cache.fingerprint[:12] / "a.h5"), "label": 0}]
    both = cache(ITEMS)
    assert Counted.calls == ["a", "b"]
    assert LoadBagd("image")(both[1])["image"].tolist() == [[2, 2]] * 3
    assert "features of cases" in capfd.readouterr().err
    assert FeatureCache(tmp_path, Counted(), progress=False)(ITEMS) == both
    assert Counted.calls == ["a", "b"]
    assert capfd.readouterr().err == ""
    assert ITEMS[0]["image"] == 1.0


def test_feature_cache_of_a_second_cohort_keeps_cases_of_the_same_name_apart(tmp_path):
    cache = FeatureCache(tmp_path, Counted(), progress=False)
    (first,), (second,) = cache(ITEMS[:1]), cache.for_cohort("other")([{"case_id": "a", "image": 5.0}])
    assert [LoadBagd("image")(item)["image"].mean() for item in (first, second)] == [1, 5]
    assert [cache.input_of(item["image"])["image"] for item in (first, second)] == [1, 5]
    assert cache.for_cohort("other").input_of(first["image"]) == ITEMS[0]
    assert cache.input_of(tmp_path / "a.h5") is None
    with pytest.raises(ValueError, match="`name` must be letters"):
        cache.for_cohort("../other")


def test_feature_cache_folder_depends_on_the_configuration(tmp_path):
    first = FeatureCache(tmp_path, Counted())(ITEMS)[0]
    two = FeatureCache(tmp_path, Counted(scale=2.0))(ITEMS)[0]
    three = FeatureCache(tmp_path, Counted(), keys=("image", "position"))(ITEMS)[0]
    assert len({first["image"], two["image"], three["image"]}) == 3
    assert float(read_bag(two["image"])["features"].mean()) == 2


@pytest.mark.parametrize("how", ["cut", "foreign"])
def test_feature_cache_replaces_damaged_and_foreign_files(tmp_path, how):
    cache = FeatureCache(tmp_path, Counted())
    file = cache.folder / "a.h5"
    cache(ITEMS)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        write_bag(file, {"features": np.zeros((1, 1))}, {"fingerprint": cache.fingerprint[:12] + "0" * 52})
    cache(ITEMS)
    assert Counted.calls == ["a", "b", "a"]
    assert read_attributes(file)["fingerprint"] == cache.fingerprint
    assert len(read_bag(file)["features"]) == 3


def test_feature_cache_names_a_failing_scan(tmp_path):
    cache = FeatureCache(tmp_path, Compose([Counted()]))
    with pytest.raises(RuntimeError, match="case 'bad' gave no features: `image` must be a scan, got None"):
        cache.make({"case_id": "bad", "image": None})


def test_feature_cache_names_all_failing_scans_after_the_others(tmp_path):
    cache = FeatureCache(tmp_path, Compose([Counted()]))
    bad = [{"case_id": case, "image": None} for case in ("bad", "worse")]
    with pytest.raises(BadCasesError, match="every case must give features, got 2 that do not:") as error:
        cache([bad[0], ITEMS[0], bad[1], ITEMS[1]])
    reason = "`image` must be a scan, got None."
    assert error.value.reasons == {"bad": reason, "worse": reason}
    assert error.value.__cause__ is None  # so that the list is the last line of a traceback, not the first failure
    assert sorted(p.name for p in cache.folder.iterdir()) == ["a.h5", "b.h5"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only"), MemoryError()])
def test_feature_cache_ends_at_once_if_the_scan_is_not_the_cause(tmp_path, error):
    def fail(item):
        Counted.calls.append(item["case_id"])
        raise error

    with pytest.raises(RuntimeError, match="case 'a' gave no features"):
        FeatureCache(tmp_path, fail, fingerprint="a" * 64)(ITEMS)
    assert Counted.calls == ["a"]


def test_feature_cache_names_no_file_of_a_failing_scan(tmp_path):
    def fail(item):
        raise ValueError(f"can't read 'DOE_JOHN.nii' in {tmp_path}/DOE_JOHN.nii")

    item = {"case_id": "a", "image": str(tmp_path / "DOE_JOHN.nii"), "series": str(tmp_path / "J")}
    with pytest.raises(BadCasesError, match=r"case 'a': can't read the file in \S+( file)?$") as error:
        FeatureCache(tmp_path, fail, fingerprint="a" * 64)([item])
    assert "JOHN" not in str(error.value)


def test_feature_cache_keeps_what_was_left_out(tmp_path):
    def read(item):
        if item["case_id"] == "glass":
            error = EmptyBagError("`slide` must have tissue.")
            error.add_facts(notes="all is ink")
            raise error
        return {"image": torch.ones(2, 3), **({"notes": "most is ink"} if item["case_id"] == "ink" else {})}

    cache = FeatureCache(tmp_path / "f", read, fingerprint="a" * 64, on_empty="write")
    items = [{"case_id": case, "image": 0.0} for case in ("glass", "ink", "plain")]
    run = FeatureExtraction(cache, tmp_path / "out", progress=False)
    for _ in range(2):  # the second time from the files
        report = run(items)
        assert report["notes"] == {"glass": "all is ink", "ink": "most is ink"}
        assert run.summary(report).endswith("\n  note on glass: all is ink\n  note on ink: most is ink")
    assert report["done_before"] == 3


def test_feature_cache_of_a_scan_without_instances(tmp_path):
    def no_tissue(item):
        raise EmptyBagError("`slide` must have tissue.")

    item = {"case_id": "glass", "image": 0.0}
    with pytest.raises(BadCasesError, match="case 'glass': `slide` must have tissue"):
        FeatureCache(tmp_path, no_tissue, fingerprint="a" * 64)([item])
    cache = FeatureCache(tmp_path, Compose([no_tissue]), ("image", "coords"), "b" * 64, on_empty="write")
    assert not cache.is_empty(item)
    bag = read_bag(cache([item])[0]["image"], ["features", "coords", "status"])
    assert (bag["features"].shape, bag["coords"].shape, bag["status"]) == ((0, 0), (0, 2), "empty")
    assert cache.is_done(item)
    assert cache.is_empty(item)
    with pytest.raises(BadCasesError, match="case 'bad': `image` must be a scan"):
        FeatureCache(tmp_path, Counted(), on_empty="write")([{"case_id": "bad", "image": None}])
    with pytest.raises(ValueError, match="`on_empty` must be one of 'error', 'write', got 'skip'"):
        FeatureCache(tmp_path, Counted(), on_empty="skip")


def test_feature_cache_refuses_invalid_items_and_transforms(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be unique, got 'a' in item 0 and item 1"):
        FeatureCache(tmp_path, Counted())([ITEMS[0], ITEMS[0]])
    for item in ({"image": 1.0}, {"image": 1.0, "case_id": "../a"}):
        with pytest.raises(ValueError, match="`case_id` must be letters"):
            FeatureCache(tmp_path, Counted())([item])
    with pytest.raises(ValueError, match=r"`transform` must be deterministic to be computed once, got \['RandFlipd'\]"):
        FeatureCache(tmp_path, Compose([Counted(), Compose([RandFlipd("image", 0.5)])]))


def test_feature_cache_keeps_features_and_geometry_only(tmp_path):
    source = tmp_path / "Secretname" / "scan"
    expected = write_series(source, (6, 5, 4))
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[2, 3, 1] = 1
    both = ["image", "label"]
    pipeline = Compose(
        [
            LoadScand(both),
            ScaleIntensityRanged("image", -1024, 976, 0, 1),
            SliceBagd(both, "axial", mode=("bilinear", "nearest")),
            MaskToInstanceLabeld("label"),
            EncodeInstancesd("image", nn.Flatten(), chunk_size=3),
        ]
    )
    affine = np.array([[-0.9, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    reference = write_nifti(tmp_path / "Secretname" / "mask.nii.gz", mask, affine)
    items = FeatureCache(tmp_path / "cache", pipeline, KEYS, progress=False)(
        [{"case_id": "c1", "image": source, "label": reference}]
    )
    assert items[0].keys() == {"case_id", "image", "label"}
    item = LoadBagd(KEYS)(items[0])
    # rows run front to back and columns right to left, which in DICOM's own order is row by row
    slices = torch.from_numpy((expected + 1024) / 2000).permute(2, 1, 0).flatten(1).float()
    torch.testing.assert_close(item["image"], slices)
    torch.testing.assert_close(item["position"], torch.tensor([30, 32.5, 35, 37.5]))
    assert item["label"].tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(item["affine"], affine, atol=1e-6)
    assert item["spatial_shape"].tolist() == [6, 5, 4]
    content = Path(items[0]["image"]).read_bytes()
    for secret in (*SECRETS.values(), "Secretname", str(tmp_path)):
        assert secret.encode() not in content


class Slow:
    """Slow transform that logs a line for each call."""

    def __init__(self, log):
        self.log = str(log)

    def __call__(self, item):
        with open(self.log, "a") as log:
            log.write(f"{item['case_id']}\n")
        time.sleep(0.05)
        return {**item, "image": torch.full((500, 20), item["image"])}


def fill(folder, log, backwards, together):
    together.wait(60)
    items = MANY[::-1] if backwards else MANY
    FeatureCache(folder, Slow(log), fingerprint="f" * 64, progress=False)(items)


def test_feature_cache_is_filled_by_two_processes(tmp_path):
    log = tmp_path / "log"
    processes = multiprocessing.get_context("fork")
    together = processes.Barrier(2)
    writers = [processes.Process(target=fill, args=(tmp_path / "cache", log, back, together)) for back in (False, True)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = sorted((tmp_path / "cache" / ("f" * 12)).iterdir())
    assert [file.name for file in files] == sorted(f"{item['case_id']}.h5" for item in MANY)
    for item in MANY:
        features = read_bag(tmp_path / "cache" / ("f" * 12) / f"{item['case_id']}.h5")["features"]
        assert torch.equal(features, torch.full((500, 20), item["image"]))
    calls = log.read_text().split()
    assert set(calls) == {item["case_id"] for item in MANY}
    assert len(calls) < 2 * len(MANY), "features of the other process were computed again"


def mean_of_file(item):
    """Features of a scan that is a text of numbers, and of its reference if it has one."""
    files = [item["image"], *([item["reference"]] if "reference" in item else [])]
    numbers = [float(number) for file in files for number in Path(file).read_text().split()]
    return {**item, "image": torch.tensor([numbers])}


def features_of(cache, item):
    return read_bag(cache([item])[0]["image"])["features"].flatten().tolist()


def rewrite(path, text):
    """Replace a file by one of the same size and modification time."""
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_feature_cache_computes_a_changed_scan_or_reference_again(tmp_path):
    scan, reference, other = (tmp_path / name for name in ("s.txt", "r.txt", "o.txt"))
    for path in (scan, reference, other):
        path.write_text("1 1")
    cache = FeatureCache(tmp_path / "cache", mean_of_file, progress=False)
    item = {"case_id": "a", "image": str(scan), "reference": str(reference)}
    assert features_of(cache, item) == [1, 1, 1, 1]
    assert cache.missing([item]) == []
    rewrite(scan, "1 7")
    assert features_of(cache, item) == [1, 7, 1, 1]
    rewrite(reference, "2 2")
    assert features_of(cache, item) == [1, 7, 2, 2]
    assert features_of(cache, {**item, "image": str(other)}) == [1, 1, 2, 2]
    assert features_of(cache, {**item, "image": scan}) == [1, 7, 2, 2]


def test_feature_cache_depends_on_the_values_that_a_file_keeps(tmp_path):
    keys = ("image", "grade")
    old = FeatureCache(tmp_path, Counted(), keys, progress=False, attributes={"encoder": "one"})
    item = {"case_id": "a", "image": 1.0, "grade": torch.ones(3), "label": 0}
    old([item])
    assert old.is_done({**item, "label": 1})
    for change in ({"grade": torch.zeros(3)}, {"series": "2"}, {"slide_mpp": 0.5}, {"image": 2.0}):
        assert not old.is_done({**item, **change})
    assert not FeatureCache(tmp_path, Counted(), keys, attributes={"encoder": "two"}).is_done(item)


def test_feature_cache_without_inputs_is_computed_again_and_says_so_once(tmp_path, caplog):
    cache = FeatureCache(tmp_path, Counted(), progress=False)
    for case in "ab":
        write_bag(cache.folder / f"{case}.h5", {"features": np.zeros((1, 1))}, {"fingerprint": cache.fingerprint})
    with caplog.at_level("WARNING"):
        cache(ITEMS)
        cache(ITEMS)
    assert [record.getMessage() for record in caplog.records] == [
        "features of 2 cases do not state their input and are computed again"
    ]
    assert Counted.calls == ["a", "b"]


def test_feature_cache_keeps_no_features_of_a_former_scan(tmp_path):
    scan = tmp_path / "s.txt"
    scan.write_text("1")
    cache = FeatureCache(tmp_path / "cache", mean_of_file, progress=False)
    item = {"case_id": "a", "image": str(scan)}
    file = Path(cache([item])[0]["image"])
    scan.rename(tmp_path / "away")
    with pytest.raises(BadCasesError, match="case 'a': No such file"):
        cache([item])
    assert file.is_file(), "features of a scan that is absent for now are kept"
    scan.write_text("no number")
    with pytest.raises(BadCasesError, match="case 'a': could not convert string to float"):
        cache([item])
    assert not file.exists()
