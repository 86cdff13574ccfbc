"""Tests of the comparison of slice scores with masks."""

import nibabel as nib
import numpy as np
import pytest

from monai_mil_ext.apps.label import SliceScoring

from .server_parts import Datastore, without_init


class Masks(Datastore):
    """Images with a mask each, except the last."""

    def get_labels_by_image_id(self, image):
        return {} if image == self.list_images()[-1] else {"final": image}

    def get_label_uri(self, image, tag):
        voxels = np.zeros((2, 2, 4), np.uint8)
        voxels[..., {"first": [0], "even": [0, 1, 2, 3]}.get(image, [3])] = 1
        path = self.folder / f"{image}_mask.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 5, 1])), path)
        return str(path)


def test_slice_scoring_separates_scans_held_out_from_those_of_the_training(tmp_path):
    store = Masks(tmp_path, images=("even", "first", "last", "none"))
    store.infos["first"]["part"] = {"net": "held out", "other": "training"}
    slices = [{"slice_index": i, "position_mm": 5.0 * i, "attention": a} for i, a in enumerate([0.4, 0.3, 0.2, 0.1])]
    requests = []

    def infer(request):
        requests.append(request["image"])
        return {"params": {"slices": slices, "plane": "axial"}}

    result = without_init(SliceScoring, infer=infer, model="net")({}, store)
    assert requests == ["even", "first", "last"]
    assert result["failed"] == {"even": "a mask with voxels in all slices or in none says nothing about the slices"}
    means = {part: (m["scans"], m["instance_auroc"], m["pointing_game"]) for part, m in result["mean"].items()}
    assert means == {"held out": (1, 1.0, 1.0), "other": (1, 0.0, 0.0)}
    assert result["mean"]["other"]["center_auroc"] == pytest.approx(1 / 6)
    assert store.infos["last"]["slice_scores"]["instance_auroc"] == 0.0
    assert "slice_scores" not in store.infos["none"]
