"""Tests of bags in object stores, read by ranges of bytes and by chunks."""

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag, write_bag
from monai_mil_ext.data.bags import hdf5_bag
from monai_mil_ext.transforms import LoadBagd, RandLoadBagd
from monai_mil_ext.utils.remote import ObjectPath, RangeFile, upload_folder

N, F = 6000, 32
FEATURES = np.random.default_rng(0).standard_normal((N, F)).astype(np.float16)
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (32, F)},
    "compressed": {"chunks": (64, F), "compression": "gzip"},
    "split rows": {"chunks": (64, 8), "compression": "lzf"},
    "leading axis": {"chunks": (1, 64, F)},
    "many chunks": {"chunks": (1, 8)},
}


@pytest.fixture
def opened(monkeypatch):
    """Return the list of all files that are opened by ranges."""
    files = []

    class Watched(RangeFile):
        def __init__(self, *args):
            super().__init__(*args)
            files.append(self)

    monkeypatch.setattr("monai_mil_ext.data.bags.bag_file.RangeFile", Watched)
    return files


def write_hdf5(path, features=FEATURES, **options):
    values = features[None] if len(options.get("chunks", ())) == 3 else features
    with ObjectPath(path).atomic() as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("features", data=values, **options)
        file["coords"] = np.arange(2 * len(features)).reshape(-1, 2)


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_of_every_layout_of_hdf5_are_those_of_the_file(memory, options, opened):
    write_hdf5(f"{memory}/a.h5", **options)
    assert inspect_bag(f"{memory}/a.h5").num_instances == N
    assert opened[-1].bytes_read < 100_000
    rng = np.random.default_rng(1)
    for rows in (range(100, 300), [5, 4, 5999, 4], np.sort(rng.choice(N, 500, replace=False)), [], range(N)):
        bag = read_bag(f"{memory}/a.h5", ["features", "coords"], rows=rows)
        assert np.array_equal(bag["features"].numpy(), FEATURES[list(rows)])
        assert np.array_equal(bag["coords"][:, 1].numpy(), 2 * np.asarray(list(rows), int) + 1)


def test_a_bag_in_s3_is_that_of_the_disk(s3, opened):
    arrays = {"features": FEATURES, "coords": np.zeros((N, 2)), "position": np.arange(N)}
    write_bag(f"{s3.root}/features_uni_v1/a.h5", arrays, {"mpp": 0.5, "unit": "px", "tile_size": 512})
    info = inspect_bag(f"{s3.root}/features_uni_v1/a.h5")
    assert (info.num_instances, info.in_features, info.mpp, info.encoder) == (N, F, 0.5, "uni_v1")
    assert opened[-1].bytes_read < 40_000
    bag = read_bag(f"{s3.root}/features_uni_v1/a.h5", ["features", "position", "tile_size"], rows=[3, 5999])
    assert np.array_equal(bag["features"].numpy(), FEATURES[[3, 5999]])
    assert (bag["position"].tolist(), bag["tile_size"]) == ([3, 5999], 512)


@pytest.mark.parametrize("layout", ["contiguous", "chunked"])
def test_a_sample_of_2000_of_200000_rows_reads_at_most_5_percent_of_the_file(memory, layout, opened):
    features = np.random.default_rng(0).standard_normal((200_000, 64)).astype(np.float16)
    write_hdf5(f"{memory}/a.h5", features, **({} if layout == "contiguous" else {"chunks": (32, 64)}))
    part = RandLoadBagd("image", num_instances=2000, dtype=None).set_random_state(0)({"image": f"{memory}/a.h5"})
    assert part["image"].shape == (2000, 64)
    assert 0.01 < opened[-1].bytes_read / opened[-1].size <= 0.05


def test_adjacent_rows_need_few_requests(memory, opened):
    write_hdf5(f"{memory}/a.h5", chunks=(32, F))
    read_bag(f"{memory}/a.h5", start=1000, stop=1256)
    assert opened[-1].num_requests <= 5


@pytest.mark.parametrize("name", ["a.pt", "a.npy", "a.npz", "a.safetensors"])
def test_other_formats_are_read_from_a_copy(memory, name, tmp_path):
    from safetensors.torch import save_file

    values = torch.from_numpy(FEATURES[:50])
    {
        "a.pt": lambda file: torch.save({"features": values}, file),
        "a.npy": lambda file: np.save(file, FEATURES[:50]),
        "a.npz": lambda file: np.savez(file, features=FEATURES[:50]),
        "a.safetensors": lambda file: save_file({"features": values}, file),
    }[name](tmp_path / name)
    upload_folder(tmp_path, memory)
    assert torch.equal(read_bag(f"{memory}/{name}", rows=[7, 3])["features"], values[[7, 3]])


def test_zarr_is_read_by_chunks(s3, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(N, F), chunks=(512, F), dtype="float16")
    array[:] = FEATURES
    upload_folder(tmp_path / "a.zarr", f"{s3.root}/a.zarr")
    assert inspect_bag(f"{s3.root}/a.zarr").num_instances == N
    assert np.array_equal(read_bag(f"{s3.root}/a.zarr", rows=[9, 5999])["features"].numpy(), FEATURES[[9, 5999]])
    assert not (tmp_path / "cache").exists()
    ObjectPath(f"{s3.root}/a.zarr/c/3/0").unlink()
    with pytest.raises(BagFileError, match=r"must be a completely written file, .* in 'a\.zarr'"):
        read_bag(f"{s3.root}/a.zarr", rows=[2000])


def test_workers_of_a_data_loader_read_bags_of_a_store(s3):
    for i in range(4):
        write_bag(f"{s3.root}/{i}.h5", {"features": np.full((3, 2), i, np.float32)})
    inspect_bag(f"{s3.root}/0.h5")  # this process has a connection before it forks
    load = LoadBagd("image")
    items = [{"image": f"{s3.root}/{i}.h5"} for i in range(4)]
    loader = DataLoader(items, batch_size=None, collate_fn=load, num_workers=2, timeout=60)
    assert [int(item["image"][0, 0]) for item in loader] == [0, 1, 2, 3]


def test_bad_bags_of_a_store_are_named_without_their_folder(s3):
    write_hdf5(f"{s3.root}/DOE_JOHN/cut.h5", chunks=(32, F))
    place = ObjectPath(f"{s3.root}/DOE_JOHN/cut.h5")
    place.write_bytes(place.read_bytes()[:-50_000])
    place.with_name("text.h5").write_bytes(b"text")
    place.with_name("empty.h5").write_bytes(b"")
    cases = {"cut.h5": "an undamaged bag file", "text.h5": "a known format", "empty.h5": "a known format"}
    for name, text in cases.items():
        with pytest.raises(BagFileError, match=f"{text}.*") as error:
            read_bag(place.with_name(name))
        assert "DOE_JOHN" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"^`path` must be a bag file that exists, got 'lost\.h5'\.$"):
        read_bag(place.with_name("lost.h5"))
    with pytest.raises(BagFileError, match=r"^`path` must lie in a bucket that exists, got none for 'a\.h5'\.$"):
        read_bag("s3://another/a.h5")
    with s3.checked_permissions(), pytest.raises(BagFileError, match=r"^`path` must be an object that the credentials"):
        read_bag(place)


def test_an_error_of_the_store_while_hdf5_reads_is_that_of_the_store(memory, monkeypatch):
    write_hdf5(f"{memory}/a.h5", chunks=(64, F), compression="gzip")
    source = RangeFile(f"{memory}/a.h5")
    with hdf5_bag.open_remote_hdf5(source) as layout:
        rows = layout.columns["features"]
        rows.read(np.arange(64))

    def fail(*args, **kwargs):
        raise OSError("connection lost")

    with pytest.raises(OSError, match="must lie in a store that answers"), hdf5_bag.open_remote_hdf5(source) as layout:  # noqa: PT012
        monkeypatch.setattr(source._store, "cat_ranges", fail)
        layout.columns["features"].read(np.arange(5000, 5064))


@pytest.mark.parametrize("width", [F, 8])
def test_an_unwritten_chunk_is_refused(memory, width):
    with ObjectPath(f"{memory}/a.h5").atomic() as temporary, h5py.File(temporary, "w") as file:
        data = file.create_dataset("features", (N, F), np.float16, chunks=(32, width), compression="gzip")
        data[: N // 2] = 1
        data[:, :8] = 2
        if width == F:
            file.clear()
            file.create_dataset("features", (N, F), np.float16, chunks=(32, width), compression="gzip")[: N // 2] = 1
    assert len(read_bag(f"{memory}/a.h5", rows=range(32))["features"]) == 32
    for rows in (range(N - 40, N), range(N)):
        with pytest.raises(BagFileError, match="must be a completely written file, got one with missing rows"):
            read_bag(f"{memory}/a.h5", rows=rows)
