"""Tests of LoadBag, RandLoadBag and LoadBagLabel."""

import json
import multiprocessing
import os
import re
import signal
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import RandomizableTrait
from monai.utils import set_determinism

from monai_mil_ext.data import BagCollate, write_bag
from monai_mil_ext.transforms import (
    LoadBag,
    LoadBagd,
    LoadBagLabel,
    LoadBagLabeld,
    LoadOrStatus,
    RandLoadBag,
    RandLoadBagd,
    RandSampleInstances,
    RandSampleInstancesd,
)
from monai_mil_ext.utils import EmptyBagError
from tests.data import bag_files as make
from tests.data.cohort_files import write_bags


@pytest.fixture
def bag(tmp_path):
    arrays = {"features": torch.arange(20.0).view(10, 2).half(), "position": torch.arange(10) * 2.5}
    write_bag(tmp_path / "bag.h5", arrays, {"affine": torch.eye(4), "spatial_shape": torch.tensor([5, 4, 10])})
    return tmp_path / "bag.h5"


@pytest.mark.parametrize(
    ("start", "stop", "rows"), [(None, None, range(10)), (3, 5, (3, 4)), (None, 1, (0,)), (9, None, (9,))]
)
def test_load_bag_rows(bag, start, stop, rows):
    item = {"image": str(bag), "start": start, "stop": stop, "label": 1}
    out = LoadBagd(["image", "position", "affine", "spatial_shape"])(item)
    assert out["image"].tolist() == [[2 * i, 2 * i + 1] for i in rows]
    assert out["image"].dtype == torch.float32
    assert out["position"].tolist() == [2.5 * i for i in rows]
    assert torch.equal(out["affine"], torch.eye(4))
    assert out["spatial_shape"].tolist() == [5, 4, 10]
    assert item["image"] == str(bag)


def test_load_bagd_stores_only_the_given_keys(bag):
    assert set(LoadBagd("image")({"image": bag})) == {"image"}
    assert set(LoadBagd("image")({"image": bag, "features": 1})) == {"image", "features"}
    assert set(LoadBag()(bag, 0, 2, ["position"])) == {"features", "position"}


def test_load_bagd_skips_missing_keys_only_if_allowed(bag):
    keys = ["image", "position", "instance_label"]
    assert set(LoadBagd(keys, allow_missing_keys=True)({"image": bag})) == {"image", "position"}
    assert LoadBagd(keys, allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(ValueError, match=r"in the bag file 'bag.h5', got 'instance_label' where there are"):
        LoadBagd(keys)({"image": bag})
    with pytest.raises(KeyError, match=r"`image` must be the path of a bag file, got no such key in \['label'\]"):
        LoadBagd(keys)({"label": 1})


def test_load_bag_names_invalid_files(bag, tmp_path):
    with pytest.raises(ValueError, match=r"`image` must hold an instance, got none in rows 4 to 4 of 'bag.h5'"):
        LoadBag()(bag, 4, 4)
    write_bag(tmp_path / "nan.h5", {"features": np.array([[1, np.nan], [np.inf, 1], [1, 1]])})
    text = r"`image` must hold finite features, got 1 NaN and 1 infinite values in 'nan\.h5'"
    with pytest.raises(ValueError, match=text):
        LoadBag()(tmp_path / "nan.h5")
    assert len(LoadBag()(tmp_path / "nan.h5", 2)["features"]) == 1
    with pytest.raises(FileNotFoundError, match=r"a bag file that exists, got 'none.h5'"):
        LoadBag()(tmp_path / "none.h5")


@pytest.mark.parametrize("label", [1, np.int16(1), np.array(1), np.array([1]), torch.tensor(1), torch.tensor([1])])
def test_load_bag_label_returns_a_class_number(label):
    out = LoadBagLabeld(["label", "other"], 2, allow_missing_keys=True)({"label": label})["label"]
    assert out.dtype == torch.int64
    assert out.shape == ()
    assert out == 1


def test_load_bag_label_reads_a_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"label": 1, "by": "reader 2"}))
    assert LoadBagLabel(2)(str(tmp_path / "a.json")) == 1
    (tmp_path / "a.json").write_text(json.dumps({"label": 5}))
    with pytest.raises(ValueError, match="`label` must be a class number from 0 to 1, got 5"):
        LoadBagLabel(2)(tmp_path / "a.json")
    for text in ("{", "[1]", "{}", "3"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"`label` must be a JSON file \{\"label\": number\}, got 'a.json'"):
            LoadBagLabel(2)(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"a number or a JSON file that exists, got 'b.json'"):
        LoadBagLabel(2)(tmp_path / "b.json")


@pytest.mark.parametrize("label", [2, -1, 0.5, 1.0, True, None, np.array([0, 1]), np.array([]), torch.tensor(0.0)])
def test_load_bag_label_names_labels_outside_of_the_classes(label):
    with pytest.raises(ValueError, match="`label` must be a class number from 0 to 1, got "):
        LoadBagLabel(2)(label)


def test_load_bag_label_names_a_missing_label():
    with pytest.raises(KeyError, match="label"):
        LoadBagLabeld("label", 2)({"image": 1})
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer, got 0"):
        LoadBagLabel(0)


def draws(transform, item, seed=3, times=4):
    transform.set_random_state(seed)
    return [transform(item) for _ in range(times)]


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("part", [{}, {"start": 2, "stop": 9}])
def test_rand_load_bag_equals_load_bag_and_rand_sample_instances(bag, stratified, part):
    item = {"image": str(bag), "label": 1, **part}
    keys = ["image", "position"]
    read = draws(RandLoadBagd(keys, 4, stratified), item)
    whole = draws(RandSampleInstancesd(keys, 4, stratified), LoadBagd(keys)(item))
    assert [bag["image"].tolist() for bag in read] == [bag["image"].tolist() for bag in whole]
    assert [bag["position"].tolist() for bag in read] == [bag["position"].tolist() for bag in whole]
    assert all((2.5 * bag["image"][:, 0] == 2 * bag["position"]).all() and len(bag["image"]) == 4 for bag in read)
    assert len({str(bag["position"]) for bag in read}) > 1


def test_rand_load_bag_loads_small_bags_completely_and_repeats_draws(bag):
    assert len(RandLoadBagd("image", 11)({"image": bag})["image"]) == 10
    load = RandLoadBag(4).set_random_state(0)
    first = load(bag)["features"]
    assert torch.equal(load(bag, randomize=False)["features"], first)
    assert torch.equal(load(bag, keys=["position"], randomize=False)["position"], first[:, 0] * 1.25)
    assert not torch.equal(load(bag)["features"], first)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rand_load_bag_is_deterministic_in_workers(bag, num_workers):
    def run():
        set_determinism(0)
        data = Dataset([{"image": str(bag)}] * 4, RandLoadBagd("image", 3))
        images = [batch["image"].tolist() for _ in range(2) for batch in DataLoader(data, num_workers=num_workers)]
        set_determinism(None)
        return images

    first = run()
    assert first == run()
    assert len({str(bag) for bag in first}) > 2


@pytest.mark.parametrize("form", [LoadBagd, lambda keys, **options: RandLoadBagd(keys, 10, **options)])
def test_load_bag_keeps_half_precision_without_dtype(bag, form):
    assert form("image", dtype=None)({"image": bag})["image"].dtype == torch.float16
    assert form("image", dtype=torch.bfloat16)({"image": bag})["image"].dtype == torch.bfloat16
    assert form("image")({"image": bag})["image"].dtype == torch.float32


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_load_bag_refuses_values_that_are_not_finite_in_any_dtype(tmp_path, wrong, dtype):
    features = np.full((3, 4), np.finfo(dtype).max, dtype)  # their sum is infinite, they are not
    write_bag(tmp_path / "a.h5", {"features": features})
    assert LoadBag(dtype=None)(tmp_path / "a.h5")["features"].isfinite().all()
    features[1, 2] = wrong
    write_bag(tmp_path / "a.h5", {"features": features})
    kind = "NaN" if np.isnan(wrong) else "infinite"
    with pytest.raises(ValueError, match=rf"got 1 {kind} value in 'a\.h5'") as caught:
        LoadBag(dtype=None)(tmp_path / "a.h5")
    assert not isinstance(caught.value, EmptyBagError)  # which would be read as "no tissue"


@pytest.mark.parametrize("form", [LoadBagd, lambda key: RandLoadBagd(key, 3)], ids=["LoadBagd", "RandLoadBagd"])
def test_load_bag_with_features_that_are_not_finite_is_unreadable_and_not_empty(tmp_path, form):
    load = LoadOrStatus(form("image"), {"image": [4]})
    for wrong, text in ((np.nan, "1 NaN value"), (np.inf, "1 infinite value")):
        write_bag(tmp_path / "a.h5", {"features": np.full((3, 4), [[1, 2, 3, wrong], [1, 2, 3, 4], [1, 2, 3, 4]])})
        status = load({"image": tmp_path / "a.h5", "case_id": "a"})["status"]
        assert status.startswith("unreadable: ")
        assert text in status
    write_bag(tmp_path / "a.h5", {"features": np.zeros((0, 4))})
    assert load({"image": tmp_path / "a.h5", "case_id": "a"})["status"] == "empty"


def test_load_bag_refuses_features_that_overflow_its_dtype(tmp_path):
    write_bag(tmp_path / "a.h5", {"features": np.array([[1e300, 1.0]])})
    with pytest.raises(ValueError, match=r"`image` must hold finite features, got 1 infinite value in 'a\.h5'"):
        LoadBag()(tmp_path / "a.h5")
    assert LoadBag(torch.float64)(tmp_path / "a.h5")["features"].max() == 1e300


@pytest.mark.parametrize("key", ["position", "coords"])
def test_load_bag_refuses_places_that_are_not_finite(tmp_path, key):
    places = np.arange(6.0).reshape(3, 2)[:, : 2 if key == "coords" else None]
    places = places if key == "coords" else places[:, 0]
    places[1] = np.nan
    arrays = {"features": np.ones((3, 4)), key: places, "instance_label": np.array([0, np.nan, 1])}
    write_bag(tmp_path / "a.h5", arrays)
    with pytest.raises(ValueError, match=rf"`{key}` must be finite, got \d NaN values? in 'a\.h5'"):
        LoadBagd(["image", key])({"image": tmp_path / "a.h5"})
    assert len(LoadBagd(["image", key])({"image": tmp_path / "a.h5", "start": 2})[key]) == 1  # others are finite
    assert LoadBagd(["image", "instance_label"])({"image": tmp_path / "a.h5"})["instance_label"].isnan().any()


def test_load_bag_label_reads_a_byte_order_mark_and_refuses_deep_json(tmp_path):
    (tmp_path / "a.json").write_text('{"label": 1}', encoding="utf-8-sig")
    assert LoadBagLabel(2)(tmp_path / "a.json") == 1
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"`label` must be a JSON file \{\"label\": number\}, got 'a\.json'"):
        LoadBagLabel(2)(tmp_path / "a.json")
    with pytest.raises(ValueError, match="`label` must be a local path, got an address that begins with 's3://'"):
        LoadBagLabel(2)("s3://bucket/a.json")


def test_load_bag_reads_files_of_other_tools_and_with_several_slides(tmp_path):
    item = {"image": make.trident(tmp_path / "a.h5"), "start": 1, "stop": 3}
    out = LoadBagd(["image", "coords", "tile_size", "unit", "encoder"])(item)
    assert out["coords"].tolist() == [[512, 0], [1024, 0]]
    assert (out["tile_size"], out["unit"], out["encoder"]) == (512, "px", "uni_v1")
    item = {"image": make.grouped(tmp_path / "b.h5"), "slide": "slide_2"}
    assert LoadBagd("image")(item)["image"].tolist() == (make.FEATURES + 1).tolist()


def test_load_bag_is_deterministic_and_rand_load_bag_is_random():
    """A cache stores results of deterministic transforms: it must store LoadBagd and never RandLoadBagd."""
    assert not isinstance(LoadBagd("image"), RandomizableTrait)
    assert isinstance(RandLoadBagd("image", 2), RandomizableTrait)
    with pytest.raises(ValueError, match="`num_instances` must be a positive integer, got 0"):
        RandLoadBagd("image", 0)


@pytest.mark.parametrize(
    ("harm", "rule", "workers"),
    [
        (os.remove, "must be a bag file that exists, got 'c3.h5'", 0),
        (os.remove, "must be a bag file that exists, got 'c3.h5'", 1),
        (lambda path: os.truncate(path, 600), "must be .* 'c3.h5'", 0),
        (
            lambda path: write_bag(path, {"features": np.full((2, 3), np.nan)}),
            "finite features, got 6 .* in 'c3.h5'",
            0,
        ),
    ],
    ids=["gone", "gone for a worker", "cut", "nan"],
)
def test_load_bagd_names_a_bag_damaged_during_an_epoch(tmp_path, harm, rule, workers):
    write_bags(tmp_path, {f"c{i}": 2 for i in range(6)})
    data = Dataset([{"image": str(tmp_path / f"c{i}.h5"), "case_id": f"c{i}"} for i in range(6)], LoadBagd("image"))
    loader = DataLoader(
        data, num_workers=workers, collate_fn=BagCollate("image"), prefetch_factor=1 if workers else None
    )
    batches = iter(loader)
    assert next(batches)["case_id"] == ["c0"]
    harm(tmp_path / "c3.h5")
    with pytest.raises((RuntimeError, ValueError, FileNotFoundError)) as caught:
        list(batches)
    assert re.search(rule, "".join(traceback.format_exception(caught.value)))


class Dies:
    """Transform that kills its worker, as the system does when memory is short."""

    def __call__(self, item):
        os.kill(os.getpid(), signal.SIGKILL)


def load_with_a_dying_worker(report):
    data = Dataset([{"image": torch.ones(2, 3), "case_id": f"c{i}"} for i in range(6)], Dies())
    try:
        list(DataLoader(data, num_workers=1, collate_fn=BagCollate("image")))
    except RuntimeError as error:
        report.write_text(str(error))


def test_load_bagd_in_a_dying_worker_ends_the_epoch(tmp_path):
    """Run in a separate process, since PyTorch raises from a signal handler at any point of the program."""
    process = multiprocessing.get_context("fork").Process(target=load_with_a_dying_worker, args=(tmp_path / "report",))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert re.match(
        r"DataLoader worker \(pid.*(killed by signal: Killed|exited unexpectedly)", (tmp_path / "report").read_text()
    )


def test_load_bagd_reads_labels_from_a_file_of_their_own(bag, tmp_path):
    count = len(LoadBagd("image")({"image": bag})["image"])
    np.save(tmp_path / "labels.npy", np.arange(count))
    item = {"image": bag, "instance_label": str(tmp_path / "labels.npy"), "start": 1, "stop": 3}
    assert LoadBagd(["image", "instance_label"])(item)["instance_label"].tolist() == [1, 2]
    draw = RandLoadBagd(["image", "position", "instance_label"], num_instances=2).set_random_state(0)
    part = draw({**item, "start": 0, "stop": count})
    whole = LoadBagd("image")({"image": bag})["image"]
    assert torch.equal(part["image"], whole[part["instance_label"]])
    assert "instance_label" not in LoadBagd("image")({"image": bag})
    np.save(tmp_path / "labels.npy", np.arange(count + 1))
    with pytest.raises(ValueError, match=rf"a label for each of {count} instances, got {count + 1} in 'labels.npy'"):
        LoadBagd(["image", "instance_label"])(item)


def _bytes_read():
    return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system counts no bytes that were read")
@pytest.mark.parametrize(("block_size", "most"), [(1, 2.0), (64, 1.1)])
def test_rand_load_bag_reads_little_more_than_its_rows(tmp_path, block_size, most):
    path = tmp_path / "bag.h5"
    write_bag(path, {"features": torch.zeros(10_000, 1024, dtype=torch.float16)})
    load = RandLoadBag(2048, dtype=None, block_size=block_size).set_random_state(0)
    load(path)  # imports, which read files too
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = _bytes_read()
    features = load(path)["features"]
    read = _bytes_read() - before
    if not read:
        pytest.skip("the folder of tests lies in memory")
    assert features.shape == (2048, 1024)
    assert 1.0 <= read / (2048 * 2048) <= most


def test_rand_load_bag_in_blocks_draws_the_rows_of_rand_sample_instances(tmp_path):
    values = torch.arange(600.0).view(300, 2)
    write_bag(tmp_path / "bag.h5", {"features": values})
    sample = RandSampleInstances(64, block_size=16).set_random_state(3)
    expected = sample(values)
    load = RandLoadBagd("image", 64, block_size=16).set_random_state(3)
    assert torch.equal(load({"image": tmp_path / "bag.h5"})["image"], expected)
    assert torch.equal(RandLoadBag(64, block_size=16).set_random_state(3)(tmp_path / "bag.h5")["features"], expected)
    sampled = RandSampleInstancesd("image", 64, block_size=16).set_random_state(3)({"image": values})["image"]
    assert torch.equal(sampled, expected)
