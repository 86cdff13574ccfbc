"""Bag files in the layout of each tool, with known numbers."""

import json
import os
import zipfile

import h5py
import numpy as np
import torch

from monai_mil_ext.data import inspect_bag, read_bag

N, F = 12, 4
FEATURES = (np.arange(N * F).reshape(N, F) / 8 - 1).astype(np.float16)
GRID = np.stack([np.arange(N) % 4, np.arange(N) // 4], 1)


def hdf5(path, datasets, attrs=(), on_coords=(), on_features=(), **options):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, **(options if np.ndim(values) else {}))
        file.attrs.update(dict(attrs))
        if "coords" in file:
            file["coords"].attrs.update(dict(on_coords))
        if "features" in file:
            file["features"].attrs.update(dict(on_features))
    return path


def trident(path, features=FEATURES, coords=GRID * 512, encoder="uni_v1"):
    on_coords = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": path.stem,
        "savetodir": "/nowhere",
        "level0_width": 4096,
        "level0_height": 3072,
    }
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "features", data=features, chunks=(1, *features.shape[1:]), maxshape=(None, *features.shape[1:])
        )
        data.attrs.update({"name": path.stem, "savetodir": "/nowhere", "encoder": json.dumps(encoder)})
        coords_data = file.create_dataset("coords", data=coords.astype(np.int64), chunks=(1, 2), maxshape=(None, 2))
        coords_data.attrs.update(on_coords)
    return path


def clam(path, features=FEATURES, coords=GRID * 512):
    with h5py.File(path, "w") as file:
        for name, values in {"features": features.astype(np.float32), "coords": coords.astype(np.int32)}.items():
            file.create_dataset(name, data=values, chunks=(32, values.shape[1]), maxshape=(None, values.shape[1]))
    return path


def stamp(path, coords=GRID * 256.0, **attrs):
    attributes = {
        "stamp_version": "2.1.0",
        "extractor": "ctranspath",
        "unit": "um",
        "tile_size_um": 256.0,
        "tile_size_px": 224,
        "code_hash": "0",
        "feat_type": "tile",
    }
    attributes = {name: value for name, value in {**attributes, **attrs}.items() if value is not None}
    return hdf5(path, {"feats": FEATURES, "coords": coords.astype(np.float32)}, attributes)


def grouped(path):
    with h5py.File(path, "w") as file:
        for i, slide in enumerate(("slide_1", "slide_2")):
            group = file.create_group(slide)
            group.create_dataset("feat", data=FEATURES + i)
            group.create_dataset("coords", data=GRID * 256)
            group.attrs["label"] = i
    return path


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def npy(path, array=FEATURES):
    np.save(path, array)
    return path


def npz(path, packed=False, **arrays):
    (np.savez_compressed if packed else np.savez)(path, **(arrays or {"features": FEATURES, "coords": GRID}))
    return path


def safetensors(path, tensors=None, metadata=None):
    from safetensors.torch import save_file

    save_file(tensors or {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(GRID)}, path, metadata)
    return path


def zarr_group(path, version=3, features=FEATURES, chunks=(5, F), **attrs):
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("features", data=features, chunks=chunks)
    group.create_array("coords", data=GRID, chunks=(5, 2))
    group.attrs.update(attrs)
    return path


def zarr_array(path, features, rows):
    import zarr

    zarr.create_array(str(path), data=features, chunks=(rows, features.shape[1]))
    return path


def wsidata(path, version=3, with_xy=True):
    """Write the parts of a wsidata 0.12 slide that hold features, tiles and their specification."""
    import pyarrow
    import pyarrow.parquet
    import zarr

    store = zarr.open_group(str(path), mode="w", zarr_format=version)
    spec = {"height": 128, "width": 128, "mpp": 1.0, "base_downsample": 2.0, "ops_downsample": 2.0}
    slide = {"shape": [1536, 2048], "mpp": 0.5, "magnification": 20}  # height and width
    store.attrs.update({"tile_spec": {"tiles": spec}, "slide_properties": slide})
    table = store.create_group("tables/resnet50_tiles")
    table.attrs.update({"encoding-type": "anndata", "region": "tiles", "instance_key": "tile_id"})
    table.create_array("X", data=FEATURES.astype(np.float32), chunks=(5, 3))
    table.create_group("obs").create_array("tile_id", data=np.arange(N)[::-1].copy())
    (path / "shapes" / "tiles").mkdir(parents=True)
    corners = (GRID * 256).astype(float)
    columns = {"tile_id": np.arange(N), "geometry": [_box(*corner, 256.0) for corner in corners]}
    xy = {"x": corners[:, 0], "y": corners[:, 1]} if with_xy else {}
    pyarrow.parquet.write_table(pyarrow.table({**columns, **xy}), path / "shapes" / "tiles" / "shapes.parquet")
    return path


def _box(x, y, edge):
    points = np.array([(x + edge, y), (x + edge, y + edge), (x, y + edge), (x, y), (x + edge, y)])
    return b"\x01" + np.array([3, 1, 5], "<u4").tobytes() + points.astype("<f8").tobytes()


def zipped(path, members, packed=False):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def torch_archive(path, pickled):
    """Write an archive in the form of ``torch.save`` around any pickle."""
    members = {"data.pkl": pickled, "version": b"3", "byteorder": b"little"}
    return zipped(path, {f"archive/{name}": content for name, content in members.items()})


ROWS = (None, [3, 0, 3, 11], [4, 5, 6], [])
PIXELS, MICRONS, BARE = ("px", 512.0), ("um", 256.0), (None, None)


def check_layout(path, case, rows):
    """Write a file by ``case`` (writer, format, unit and tile size, coordinates), and check its ``rows``."""
    write, format_name, spec, coords = case
    path = write(path)
    keys = ["features", "coords", "unit", "tile_size", "format"]
    bag = read_bag(path, keys, rows=rows, allow_missing_keys=True)
    index = slice(None) if rows is None else np.asarray(rows, int)
    info = inspect_bag(path, estimate=True)
    assert bag["features"].float().numpy().tolist() == FEATURES[index].tolist()
    assert bag["features"].dtype == info.dtype
    assert (info.num_instances, info.in_features, info.format, bag["format"]) == (N, F, format_name, format_name)
    assert (info.unit, info.tile_size) == spec == (bag.get("unit"), bag.get("tile_size"))
    assert ("coords" in bag) == (coords is not None) == ("coords" in info.keys)
    if coords is not None:
        assert bag["coords"].tolist() == coords[index].tolist()


class Trap:
    """Object whose unpickling would create the folder ``marker``."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)
