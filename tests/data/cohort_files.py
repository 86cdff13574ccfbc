"""Cohorts for tests: bag files of known sizes and tables of them."""

import csv
import json

import numpy as np
import torch

from monai_mil_ext.data import write_bag
from tests.data import bag_files

HEAD = ["bag", "patient", "label"]


def write_bags(folder, sizes, width=3):
    """Write an HDF5 bag of distinct features for each name."""
    for i, (name, size) in enumerate(sizes.items()):
        features = np.arange(size * width, dtype=np.float32).reshape(size, width) + 1000 * i
        write_bag(folder / f"{name}.h5", {"features": features, "coords": np.arange(2 * size).reshape(size, 2)})


def write_table(path, rows, delimiter=","):
    """Write a table whose first row holds the column names."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def texts(issues):
    """Return the lines of a report."""
    return [str(issue) for issue in issues]


def write_scans(folder, scans):
    """Write a cohort of scans as JSON."""
    (folder / "cohort.json").write_text(json.dumps({"license": "none", "scans": scans}))
    return folder / "cohort.json"


def touch(folder, *names):
    """Write files of a few bytes."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"text")


def trident_job(folder, slides=("a", "b.1"), encoders=("uni_v1",)):
    """Write a job folder of TRIDENT: features, coordinates, contours, thumbnails and logs."""
    job = folder / "20x_256px_0px_overlap"
    for slide in slides:
        for encoder in encoders:
            (job / f"features_{encoder}").mkdir(parents=True, exist_ok=True)
            bag_files.trident(job / f"features_{encoder}" / f"{slide}.h5", encoder=encoder)
        (job / "patches").mkdir(exist_ok=True)
        bag_files.hdf5(job / "patches" / f"{slide}_patches.h5", {"coords": bag_files.GRID * 512})
        touch(folder, f"contours/{slide}.jpg", f"contours_geojson/{slide}.geojson", f"thumbnails/{slide}.jpg")
        touch(job, f"visualization/{slide}.jpg")
    touch(folder, "_config_segmentation.json", "_logs_segmentation.txt", "20x_256px_0px_overlap/_logs_coords.txt")


def slideflow_bags(folder, slides=("a", "b.1")):
    """Write the bags of slideflow, each with an index of its tiles."""
    touch(folder, "bags/bags_config.json")
    for slide in slides:
        torch.save(torch.rand(bag_files.N, bag_files.F), folder / "bags" / f"{slide}.pt")
        np.savez(folder / "bags" / f"{slide}.index.npz", arr_0=bag_files.GRID * 512)


def clam_features(folder, slides=("a", "b.1")):
    """Write the folder of features of CLAM with both kinds of files, and one slide in one of them only."""
    for name in ("h5_files", "pt_files", "patches"):
        (folder / name).mkdir(parents=True)
    for slide in slides:
        bag_files.clam(folder / "h5_files" / f"{slide}.h5")
        torch.save(torch.as_tensor(bag_files.FEATURES).float(), folder / "pt_files" / f"{slide}.pt")
        bag_files.hdf5(folder / "patches" / f"{slide}.h5", {"coords": bag_files.GRID * 512})
    torch.save(torch.as_tensor(bag_files.FEATURES).float() + 1, folder / "pt_files" / "c.pt")


def torchmil_folders(folder, slides=("a", "b.1")):
    """Write the folders of torchmil, with a file of each bag in each of them."""
    arrays = {"features": bag_files.FEATURES, "coords": bag_files.GRID, "labels": np.array([1])}
    arrays["patch_labels"] = np.arange(bag_files.N) % 2
    for name, values in arrays.items():
        (folder / name).mkdir(parents=True)
        for slide in slides:
            np.save(folder / name / f"{slide}.npy", values)


def stamp_features(folder, slides=("a", "b.1")):
    """Write the features of STAMP, with its log."""
    (folder / "uni-1234").mkdir(parents=True)
    for slide in slides:
        bag_files.stamp(folder / "uni-1234" / f"{slide}.h5", unit="um", tile_size_um=256.0, tile_size_px=224)
    touch(folder, "uni-1234/logfile_2026-01-01", "uni-1234/a.jpg")


def gdc_download(folder):
    """Write what gdc-client leaves: a folder for each slide with its log and annotations, and a partial download."""
    for i, name in enumerate(("TCGA-AA-0001-01Z-00-DX1.0b1c", "TCGA-AA-0002-01Z-00-DX1.2d3e")):
        touch(folder, f"uuid-{i}/{name}.svs", f"uuid-{i}/logs/{name}.svs.parcel", f"uuid-{i}/annotations.txt")
    touch(folder, "uuid-2/TCGA-AA-0003-01Z-00-DX1.4f5a.svs.partial", "MANIFEST.txt", "uuid-0/.DS_Store")
