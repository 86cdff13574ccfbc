"""Tests of the reader of bags in HDF5, as each tool writes them."""

import subprocess
import sys

import h5py
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from tests.data import bag_files as make
from tests.data.bag_files import FEATURES, GRID, MICRONS, PIXELS, ROWS, F, N, check_layout

CASES = {
    "trident.h5": (make.trident, "trident", PIXELS, GRID * 512),
    "clam.h5": (make.clam, "clam", PIXELS, GRID * 512),
    "stamp.h5": (make.stamp, "stamp", MICRONS, GRID * 256),
}


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_open_hdf5_reads_the_layout_of_every_tool(name, rows, tmp_path):
    check_layout(tmp_path / name, CASES[name], rows)


def test_inspect_bag_of_trident(tmp_path):
    info = inspect_bag(make.trident(tmp_path / "a.h5"))
    assert (info.encoder, info.magnification, info.dtype, info.level) == ("uni_v1", 20.0, torch.float16, "tile")
    folder = tmp_path / "features_conch"
    folder.mkdir()
    assert inspect_bag(make.trident(folder / "a.h5", encoder=None)).encoder == "conch"
    assert inspect_bag(make.trident(tmp_path / "a.h5", encoder=None)).encoder is None
    assert read_bag(tmp_path / "a.h5", ["spatial_shape"])["spatial_shape"].tolist() == [4096, 3072]  # width and height
    assert float(read_bag(tmp_path / "a.h5", ["level0_magnification"])["level0_magnification"]) == 40
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["coords"].attrs["level0_height"]
    with pytest.raises(ValueError, match="got 'spatial_shape' where there are"):
        read_bag(tmp_path / "a.h5", ["spatial_shape"])


@pytest.mark.parametrize(("level", "size"), [(0, [4096, 3072]), (1, None)])
def test_read_bag_of_clam_knows_the_size_of_the_slide_at_level_0(level, size, tmp_path):
    with h5py.File(make.clam(tmp_path / "a.h5"), "a") as file:
        file["coords"].attrs.update({"patch_size": 256, "patch_level": level, "level_dim": [4096, 3072]})
    bag = read_bag(tmp_path / "a.h5", ["features", "spatial_shape"], allow_missing_keys=True)
    assert (bag["spatial_shape"].tolist() if "spatial_shape" in bag else None) == size


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


def test_read_bag_of_coordinates_only_in_hdf5(tmp_path):
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


def test_open_hdf5_of_many_slides_needs_a_name(tmp_path):
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


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (5, F), "compression": "gzip"},
        {"chunks": (5, 3)},
        {"chunks": (5, F), "shuffle": True, "fletcher32": True},
    ],
    ids=["packed", "parts of rows", "checked"],
)
def test_open_hdf5_reads_chunks_of_all_kinds(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=FEATURES, **options)
    for rows in (range(N), [0, 4, 5, 11], [2], [7, 2]):
        assert read_bag(tmp_path / "a.h5", rows=list(rows))["features"].tolist() == FEATURES[list(rows)].tolist()


@pytest.mark.parametrize("options", [{"chunks": (4, 4)}, {"chunks": (4, 4), "compression": "gzip"}, {}])
def test_open_hdf5_refuses_rows_that_were_never_written(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("features", (N, 4), "f2", **options)
        if options:
            data[:4] = FEATURES[:4]
    with pytest.raises(BagFileError, match=r"completely written file, got one with missing rows in 'a\.h5'"):
        read_bag(tmp_path / "a.h5")


def test_open_hdf5_refuses_data_of_other_files(tmp_path):
    make.clam(tmp_path / "other.h5")
    FEATURES.tofile(tmp_path / "raw.bin")
    layout = h5py.VirtualLayout((N, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "features", (N, 4))
    makers = [
        lambda file: file.__setitem__("features", h5py.ExternalLink("other.h5", "features")),
        lambda file: file.create_group("slide_1").__setitem__("feat", h5py.ExternalLink("other.h5", "features")),
        lambda file: file.update(
            {"far/off": h5py.ExternalLink("other.h5", "features"), "feats": h5py.SoftLink("far/off")}
        ),
        lambda file: file.create_virtual_dataset("features", layout),
        lambda file: file.create_dataset("features", (N, 4), "f2", external=[(str(tmp_path / "raw.bin"), 0, 96)]),
    ]
    for maker in makers:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            maker(file)
        with pytest.raises(BagFileError, match=r"`path` must hold its own data, got .* in 'a\.h5'"):
            read_bag(tmp_path / "a.h5", slide="slide_1")


def test_open_hdf5_refuses_a_file_that_is_being_written(tmp_path):
    path = tmp_path / "a.h5"
    write = f"import h5py; file = h5py.File({str(path)!r}, 'w'); file['features'] = [[1.0]]; file.flush(); input(1)"
    with subprocess.Popen([sys.executable, "-c", write], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        with pytest.raises(BagFileError, match=r"a bag file that no writer has open, got 'a\.h5'"):
            read_bag(path)
        process.communicate(b"\n")
    assert len(read_bag(path)["features"]) == 1


def test_open_hdf5_passes_over_links_that_lead_nowhere(tmp_path):
    path = make.clam(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["gone"] = h5py.SoftLink("/nowhere")
        file["loop"] = h5py.SoftLink("/loop")
    assert read_bag(path)["features"].tolist() == FEATURES.tolist()
    assert inspect_bag(path).keys == ("coords",)
    with pytest.raises(ValueError, match=r"`keys` must be in the bag file 'a\.h5', got 'gone'"):
        read_bag(path, ["gone"])


def test_open_hdf5_takes_no_other_array_where_the_features_are_a_dead_link(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weights"] = FEATURES
        file["features"] = h5py.SoftLink("/nowhere")
    with pytest.raises(BagFileError, match=r"features of real numbers, got a link that leads nowhere in 'a\.h5'"):
        read_bag(tmp_path / "a.h5")


def test_open_hdf5_takes_an_empty_attribute_or_dataset_as_missing(tmp_path):
    path = make.hdf5(tmp_path / "a.h5", {"features": FEATURES}, {"encoder": h5py.Empty("S10"), "mpp": h5py.Empty("f4")})
    with h5py.File(path, "a") as file:
        file["none"] = h5py.Empty("f4")
    info = inspect_bag(path)
    assert (info.encoder, info.mpp, info.keys) == (None, None, ())
    keys = ["features", "encoder", "mpp", "none"]
    assert set(read_bag(path, keys, allow_missing_keys=True)) == {"features"}
