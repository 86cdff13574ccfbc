"""Bag formats of other tools: features, coordinates with unit, and tile size."""

import h5py
import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from tests.data import bag_files as make
from tests.data.bag_files import FEATURES, GRID, F, N

PIXELS, MICRONS, BARE = ("px", 512.0), ("um", 256.0), (None, None)
TENSORS = {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(GRID), "label": 1, "name": "a"}
CASES = {
    "trident.h5": (make.trident, "trident", PIXELS, GRID * 512),
    "clam.h5": (make.clam, "clam", PIXELS, GRID * 512),
    "stamp.h5": (make.stamp, "stamp", MICRONS, GRID * 256),
    "tensor.pt": (lambda p: make.saved(p, TENSORS["features"]), "torch", BARE, None),
    "numpy.pt": (lambda p: make.saved(p, FEATURES), "torch", BARE, None),
    "old.pt": (lambda p: make.saved(p, FEATURES, _use_new_zipfile_serialization=False), "torch", BARE, None),
    "dictionary.pt": (lambda p: make.saved(p, TENSORS), "torch", BARE, GRID),
    "view.pt": (lambda p: make.saved(p, TENSORS["features"].T.contiguous().T), "torch", BARE, None),
    "part.pt": (lambda p: make.saved(p, torch.cat([TENSORS["features"]] * 2)[N:]), "torch", BARE, None),
    "array.npy": (make.npy, "npy", BARE, None),
    "columns.npy": (lambda p: make.npy(p, np.asfortranarray(FEATURES)), "npy", BARE, None),
    "big_endian.npy": (lambda p: make.npy(p, FEATURES.astype(">f4")), "npy", BARE, None),
    "arrays.npz": (make.npz, "npz", BARE, GRID),
    "packed.npz": (lambda p: make.npz(p, packed=True), "npz", BARE, GRID),
    "told.npz": (
        lambda p: make.npz(p, arr=FEATURES, coords=GRID, unit=np.array("um"), tile_size=np.array(256)),
        "npz",
        MICRONS,
        GRID,
    ),
    "tensors.safetensors": (make.safetensors, "safetensors", BARE, GRID),
    "told.safetensors": (
        lambda p: make.safetensors(p, metadata={"unit": "px", "tile_size": "512"}),
        "safetensors",
        PIXELS,
        GRID,
    ),
    "bf16.safetensors": (
        lambda p: make.safetensors(p, {"feats": TENSORS["features"].bfloat16()}),
        "safetensors",
        BARE,
        None,
    ),
    "three.zarr": (make.zarr_group, "zarr", BARE, GRID),
    "two.zarr": (lambda p: make.zarr_group(p, 2, unit="um", tile_size=256), "zarr", MICRONS, GRID),
    "slide3.zarr": (make.wsidata, "wsidata", ("px", 256.0), GRID[::-1] * 256),
    "slide2.zarr": (lambda p: make.wsidata(p, 2, with_xy=False), "wsidata", ("px", 256.0), GRID[::-1] * 256),
}


@pytest.mark.filterwarnings("ignore:.* is read whole even for a few of its rows")
@pytest.mark.parametrize("rows", [None, [3, 0, 3, 11], [4, 5, 6], []], ids=["all", "mixed", "run", "none"])
@pytest.mark.parametrize("name", CASES)
def test_read_bag_reads_every_layout(name, rows, tmp_path):
    write, format_name, spec, coords = CASES[name]
    path = write(tmp_path / name)
    keys = ["features", "coords", "unit", "tile_size", "format"]
    got = read_bag(path, keys, rows=rows, allow_missing_keys=True)
    at = slice(None) if rows is None else np.asarray(rows, int)
    info = inspect_bag(path, estimate=True)
    assert got["features"].float().numpy().tolist() == FEATURES[at].tolist()
    assert got["features"].dtype == info.dtype
    assert (info.num_instances, info.in_features, info.format, got["format"]) == (N, F, format_name, format_name)
    assert (info.unit, info.tile_size) == spec == (got.get("unit"), got.get("tile_size"))
    assert ("coords" in got) == (coords is not None) == ("coords" in info.keys)
    if coords is not None:
        assert got["coords"].tolist() == coords[at].tolist()


def test_inspect_bag_of_trident(tmp_path):
    info = inspect_bag(make.trident(tmp_path / "a.h5"))
    assert (info.encoder, info.magnification, info.dtype, info.level) == ("uni_v1", 20.0, torch.float16, "tile")
    folder = tmp_path / "features_conch"
    folder.mkdir()
    assert inspect_bag(make.trident(folder / "a.h5", encoder=None)).encoder == "conch"
    assert inspect_bag(make.trident(tmp_path / "a.h5", encoder=None)).encoder is None
    assert read_bag(tmp_path / "a.h5", ["spatial_shape"])["spatial_shape"].tolist() == [4096, 3072]  # width and height
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["coords"].attrs["level0_height"]
    with pytest.raises(ValueError, match="got 'spatial_shape' where there are"):
        read_bag(tmp_path / "a.h5", ["spatial_shape"])


@pytest.mark.parametrize("shape", [(0, F), (0,)])
@pytest.mark.parametrize("coords", [GRID[:0], None])
def test_read_bag_of_a_slide_without_tissue_is_empty(tmp_path, shape, coords):
    datasets = {"features": np.zeros(shape, np.float32), **({} if coords is None else {"coords": coords})}
    for path in (
        make.hdf5(tmp_path / "a.h5", datasets),
        make.saved(tmp_path / "a.pt", torch.zeros(shape)),
        make.npy(tmp_path / "a.npy", np.zeros(shape)),
        make.safetensors(tmp_path / "a.safetensors", {"features": torch.zeros(shape)}),
    ):
        assert inspect_bag(path).num_instances == 0
        assert len(read_bag(path)["features"]) == 0


def test_inspect_bag_of_slide_vectors(tmp_path):
    trident = make.hdf5(
        tmp_path / "t.h5", {"features": FEATURES[0], "coords": GRID}, on_features={"encoder": '"titan"'}
    )
    stamps = [
        make.hdf5(tmp_path / f"{level}.h5", {"feats": values}, {"feat_type": level, "encoder": "chief"})
        for level, values in (("slide", FEATURES[0]), ("patient", FEATURES[:1]))
    ]
    assert [inspect_bag(path).level for path in (trident, *stamps)] == ["slide", "slide", "patient"]
    assert [inspect_bag(path).encoder for path in (trident, *stamps)] == ["titan", "chief", "chief"]
    for path in (trident, *stamps):
        assert read_bag(path, ["features", "coords"], allow_missing_keys=True).keys() == {"features"}
        assert read_bag(path)["features"].tolist() == FEATURES[:1].tolist()


@pytest.mark.parametrize(
    ("attrs", "size"),
    [
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0001, 4.0001)}, 1024.0),
        ({"patch_size": 256, "patch_level": 0}, 256.0),
        ({"patch_size": 256, "patch_level": 0, "custom_downsample": 2}, 512.0),
        ({"patch_size": 256, "patch_level": 2}, 64.0),  # the downsample of the level is unknown
    ],
)
def test_inspect_bag_tile_size_of_clam(tmp_path, attrs, size):
    path = make.hdf5(tmp_path / "a.h5", {"coords": GRID * 64, "features": FEATURES}, on_coords=attrs)
    info = inspect_bag(path, estimate=True)
    assert (info.format, info.tile_size, info.tile_size_estimated) == ("clam", size, size == 64)
    assert inspect_bag(path).tile_size == (None if size == 64 else size)
    assert read_bag(path, ["tile_size"])["tile_size"] == size


def test_read_bag_of_coordinates_only(tmp_path):
    path = make.hdf5(tmp_path / "a.h5", {"coords": GRID}, on_coords={"patch_size": 8, "patch_level": 0})
    assert inspect_bag(path)[:3] == (N, None, None)
    assert read_bag(path, ["coords", "tile_size"])["tile_size"] == 8
    with pytest.raises(ValueError, match=r"`keys` must be in the bag file 'a.h5', got 'features' where there are \['c"):
        read_bag(path)


@pytest.mark.parametrize(
    ("edge", "attrs", "unit", "size"),
    [
        (256, {"tile_size_um": None, "tile_size_px": None, "tile_size": 256.0}, "um", 256.0),
        (224, {"unit": None, "tile_size_um": None, "tile_size_px": None}, "um", 256.0),
        (1, {"unit": None, "tile_size_um": None, "tile_size_px": None, "tile_size": 224.2}, "um", 256.0),
    ],
    ids=["2.0", "historic by stride", "historic by size"],
)
def test_inspect_bag_of_early_stamp_is_in_micrometers(tmp_path, edge, attrs, unit, size):
    path = make.stamp(tmp_path / "a.h5", coords=GRID * float(edge), **attrs)
    got = read_bag(path, ["coords", "unit", "tile_size"], rows=[1, 5])
    scale = 1.0 if edge == 256 else 256 / 224
    torch.testing.assert_close(got["coords"].double(), torch.tensor(GRID[[1, 5]] * edge * scale))
    assert (got["unit"], got["tile_size"]) == (unit, size)


@pytest.mark.parametrize("attrs", [{}, {"tile_size": 300}, {"unit": "px"}])
def test_inspect_bag_refuses_to_guess_the_unit(tmp_path, attrs):
    values = {"unit": None, "tile_size_um": None, "tile_size_px": None, **attrs}
    path = make.stamp(tmp_path / "a.h5", coords=GRID * 300.0, **values)
    assert len(read_bag(path)["features"]) == N
    for key in ("coords", "unit"):
        with pytest.raises(BagFileError, match=r"must state the unit of its coords, got .* in 'a.h5'"):
            read_bag(path, [key])


def test_inspect_bag_of_multiplex_stamp_has_no_coords(tmp_path):
    path = make.hdf5(tmp_path / "a.h5", {"patch_embeddings": FEATURES}, {"stamp_version": "2.3"})
    assert read_bag(path, ["features", "coords"], allow_missing_keys=True).keys() == {"features"}


def test_read_bag_of_many_slides_needs_a_name(tmp_path):
    path = make.grouped(tmp_path / "a.h5")
    got = read_bag(path, ["features", "coords", "label"], slide="slide_2")
    assert got["features"].tolist() == (FEATURES + 1).tolist()
    assert got["coords"].tolist() == (GRID * 256).tolist()
    assert got["label"] == 1
    assert inspect_bag(path, "slide_1").format == "asmil"
    for slide in (None, "slide_3"):
        with pytest.raises(
            BagFileError, match=rf"must name a slide of the file, got {slide!r} among 2 slides: 'slide_1'"
        ):
            read_bag(path, slide=slide)


def test_open_zarr_of_many_tables_needs_a_name(tmp_path):
    import zarr

    path = make.wsidata(tmp_path / "a.zarr")
    zarr.open_group(str(path))["tables"].create_group("uni_tiles").create_array("X", data=FEATURES)
    assert inspect_bag(path, "resnet50_tiles").encoder == "resnet50"
    with pytest.raises(BagFileError, match=r"must name a table of features, got None among \['resnet50_tiles', 'uni_"):
        read_bag(path)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"features": FEATURES, "feats": FEATURES}, r"one of the names .* got \['features', 'feats'\] in 'a"),
        ({"one": FEATURES, "two": FEATURES}, r"one of the names .* got \['one', 'two'\] in 'a"),
        ({"features": FEATURES, "coords": GRID[1:]}, r"a row of coords for every instance, got 11 for 12 in 'a"),
        ({"features": FEATURES[0]}, r"must hold features \(N, F\), got \(4,\) in 'a"),
        ({"features": np.ones((2, 2, 2))}, r"must hold features \(N, F\), got \(2, 2, 2\) in 'a"),
        ({"features": FEATURES, "coords": GRID[:, 0]}, r"must hold coords \(N, 2\), got \(12,\) in 'a"),
        ({"step": np.ones(3)}, r"must hold features, got \['step'\] in 'a"),
    ],
)
@pytest.mark.parametrize("suffix", ["h5", "npz", "pt", "safetensors"])
def test_named_arrays_refuses_what_is_no_bag(tmp_path, suffix, arrays, match):
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    path = tmp_path / f"a.{suffix}"
    {
        "h5": lambda: make.hdf5(path, arrays),
        "npz": lambda: make.npz(path, **arrays),
        "pt": lambda: make.saved(path, tensors),
        "safetensors": lambda: make.safetensors(path, tensors),
    }[suffix]()
    with pytest.raises(BagFileError, match=match):
        read_bag(path)


def test_read_bag_drops_a_leading_axis_of_one(tmp_path):
    arrays = {"features": FEATURES[None], "coords": GRID[None]}
    for path in (
        make.hdf5(tmp_path / "a.h5", arrays),
        make.hdf5(tmp_path / "b.h5", arrays, chunks=(1, 3, 2)),
        make.npz(tmp_path / "a.npz", **arrays),
        make.npz(tmp_path / "b.npz", packed=True, **arrays),
        make.saved(tmp_path / "a.pt", arrays),
        make.saved(tmp_path / "b.pt", torch.from_numpy(FEATURES)[None]),
        make.zarr_group(tmp_path / "a.zarr", features=FEATURES[None], chunks=(1, 5, F)),
    ):
        assert inspect_bag(path)[:2] == (N, F)
        assert read_bag(path)["features"].tolist() == FEATURES.tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (5, F), "compression": "gzip"},
        {"chunks": (5, 3)},
        {"chunks": (5, F), "shuffle": True, "fletcher32": True},
    ],
    ids=["packed", "parts of rows", "checked"],
)
def test_read_bag_reads_chunks_of_all_kinds(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=FEATURES, **options)
    for rows in (range(N), [0, 4, 5, 11], [2], [7, 2]):
        assert read_bag(tmp_path / "a.h5", rows=list(rows))["features"].tolist() == FEATURES[list(rows)].tolist()
