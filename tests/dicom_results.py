"""A small series with the scores of its slices, and its result for DICOM objects."""

import torch

from monai_mil_ext.data import ScanResult
from monai_mil_ext.transforms import LoadScan, SliceBag, SliceScoresToVolume
from tests.scans import write_series

FRAME = "1.2.826.0.1.77"
SCORES = torch.tensor([0.1, 0.5, 0.0, 0.4])
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "upside down": (1, 0, 0, 0, -1, 0),
    "oblique": (0.8, 0.6, 0, -0.6, 0.8, 0),
}


def answered(folder, orientation="axial", plane="axial", **tags):
    """Write a series and return it with the scores of its slices, through loading, slicing and inversion."""
    write_series(folder, orientation=ORIENTATIONS[orientation], FrameOfReferenceUID=FRAME, **tags)
    slices = SliceBag(plane)(LoadScan()(folder))
    scores = SCORES if len(slices.bag) == 4 else torch.arange(1.0, len(slices.bag) + 1)
    return SliceScoresToVolume(plane)(scores, slices.slice_index, slices.affine, slices.spatial_shape), slices


def result_of(folder, series=(), **options):
    """Return the result of a series whose slices 2 and 4 are a set that holds a lesion."""
    volume, slices = answered(folder, **dict(series))
    places = (slices.slice_index, slices.affine, slices.spatial_shape)
    chosen = SliceScoresToVolume()(torch.tensor([0.0, 1, 0, 1]), *places)
    stated = {"probabilities": {"benign": 0.25, "malignant": 0.75}, "predicted": "malignant", "top_k": 1}
    return ScanResult(
        volume, **(stated | {"chosen": chosen, "guarantee": "If it has a lesion, so have these."} | options)
    )


def of_scan(report, container):
    """Return what a report says of the scan, outside of the groups of slices."""
    (found,) = [item for item in report.content[0].ContentSequence if item.name.meaning == container]
    return found.ContentSequence
