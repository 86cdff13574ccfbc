"""Tests of labels that masks imply."""

import nibabel as nib
import numpy as np
import pytest
from monai.data import ITKWriter

from monai_mil_ext.apps.label import MaskRule
from monai_mil_ext.apps.label.mask_labels import slice_labels

NAMES = ["no tumor", "Tumor"]
SEGMENTS = {"label_info": [{"name": "liver", "idx": 1}, {"name": "tumor", "idx": 2}, {"name": "No tumor", "idx": 4}]}
IDENTITY, FLIPPED = np.eye(4), np.diag([-1.0, 1, -5, 1])


def write_mask(path, values, affine=IDENTITY):
    """A mask with a slice of each value."""
    voxels = np.zeros((4, 4, len(values)), np.uint8)
    voxels[1:3, 1:3] = values
    if path.suffix == ".bin":
        voxels.astype(np.uint16).tofile(path)
    elif path.suffix == ".nrrd":
        writer = ITKWriter(output_dtype=np.uint8)
        writer.set_data_array(voxels, channel_dim=None)
        writer.set_metadata({"affine": affine})
        writer.write(path)
    else:
        nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".bin"])
@pytest.mark.parametrize(("values", "expected"), [([0, 0, 0], 0), ([0, 3, 0], 1)])
def test_mask_rule_takes_any_voxel_for_the_second_class(tmp_path, ending, values, expected):
    label = MaskRule("nonempty", [NAMES])(write_mask(tmp_path / f"m{ending}", values), {})
    assert (label, type(label)) == (expected, int)


@pytest.mark.parametrize(
    ("values", "info", "expected"),
    [
        ([0, 2, 0], SEGMENTS, "Tumor"),
        ([1, 4, 0], SEGMENTS, "no tumor"),
        ([1, 0, 0], SEGMENTS, None),  # a segment that is no class
        ([0, 0, 0], SEGMENTS, None),  # the segment of the class is empty
        ([0, 2, 0], {"label_info": [{"name": "no tumor"}, {"name": "tumor"}]}, "Tumor"),  # numbered in this order
        ([0, 2, 0], {}, None),
        ([0, 2, 0], {"label_info": ["tumor"]}, None),
        ([0, 2, 0], {"label_info": "tumor"}, None),
    ],
)
def test_mask_rule_takes_the_segment_with_the_name_of_a_class(tmp_path, values, info, expected):
    assert MaskRule("names", [NAMES])(write_mask(tmp_path / "m.nii", values), info) == expected


def test_mask_rule_refuses_masks_of_two_classes_and_unreadable_ones(tmp_path, http_errors):
    with pytest.raises(http_errors, match=r"`label` must have voxels of one class, got those of \['No tumor', 'tumor'"):
        MaskRule("names", [NAMES])(write_mask(tmp_path / "m.nii", [0, 2, 4]), SEGMENTS)
    (tmp_path / "x.nii.gz").write_bytes(b"x")
    with pytest.raises(http_errors, match="`label` must be a readable mask"):
        MaskRule("nonempty", [NAMES])(str(tmp_path / "x.nii.gz"), {})


def test_mask_rule_is_off_unless_asked_for_and_for_other_files(tmp_path):
    assert MaskRule(None, [NAMES])(write_mask(tmp_path / "m.nii", [1]), {}) is None
    assert MaskRule("nonempty", [NAMES])(str(tmp_path / "a.json"), {}) is None


def test_mask_rule_fits_the_models():
    with pytest.raises(ValueError, match="`mask_label` must be nonempty or names, got 'yes'"):
        MaskRule("yes", [NAMES])
    with pytest.raises(ValueError, match=r"`mask_label` must be names for models without two classes, got \['a'"):
        MaskRule("nonempty", [NAMES, ["a", "b", "c"]])


@pytest.mark.parametrize(("affine", "expected"), [(np.diag([1.0, 1, 5, 1]), [0, 1, 1]), (FLIPPED, [1, 1, 0])])
def test_slice_labels_are_in_the_order_of_the_slices_of_the_scan(tmp_path, affine, expected):
    mask = write_mask(tmp_path / "m.nii", [0, 1, 2], affine)
    first = 0.0 if affine[2, 2] > 0 else -10.0
    positions = [first, first + 5, first + 10]
    assert slice_labels(mask, "axial", [0, 1, 2], positions).tolist() == expected
    assert slice_labels(mask, "axial", [2, 0], positions[::-2]).tolist() == expected[::-2]


@pytest.mark.parametrize(("index", "position"), [([0, 3], [0, 15]), ([0, 1], [0, 6]), ([], [])])
def test_slice_labels_refuse_a_mask_of_other_slices(tmp_path, index, position):
    mask = write_mask(tmp_path / "m.nii", [0, 1, 2], np.diag([1.0, 1, 5, 1]))
    with pytest.raises(ValueError, match="`label` must be a mask with the slices of the scan"):
        slice_labels(mask, "axial", index, position)
