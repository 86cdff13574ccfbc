"""Tests of the features of the benchmark: from drawn scans to bag files, in several processes."""

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.transforms import LoadBagd


def write_head(folder):
    """Write a ball as the head, in the place where the fetched one lies."""
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, size) for size in (140, 170, 130)], indexing="ij")
    ball = (200 * (np.sqrt(sum(axis**2 for axis in axes)) < 1)).astype(np.uint8)
    folder.mkdir(parents=True)
    (folder / "mni152.nii.gz").write_bytes(gzip.compress(nib.Nifti1Image(ball, np.eye(4)).to_bytes(), 1))


@pytest.mark.slow(buys="the features of the benchmark are those of the drawn scans, encoded as the bundle does it")
def test_scans_are_drawn_and_encoded_once(small, tmp_path):
    from experiments.lesions.features import prepare_scans, scan_items

    write_head(tmp_path / "packages")
    torch.save(MobileNetV2Features().state_dict(), tmp_path / "mobilenet_v2.pth")
    options = replace(small.drawing, size=32, pixel_mm=6.0)
    scans = small.test("two", 1)[:2]
    prepare_scans(scans, tmp_path, options, jobs=1)
    items = scan_items(scans, tmp_path)
    for item, scan in zip(items, scans, strict=True):
        bag = LoadBagd(["image", "instance_label"])({"image": item["image"]})
        mask = np.asarray(nib.load(tmp_path / scan.row["reference"]).dataobj)
        assert bag["image"].shape == (mask.shape[2], 2560)
        # slices of a bag run from the feet to the head, as those of the volume do
        assert bag["instance_label"].tolist() == (mask > 0).any((0, 1)).astype(int).tolist()
        assert item["label"] == [int(scan.num_lesions > 0)]
