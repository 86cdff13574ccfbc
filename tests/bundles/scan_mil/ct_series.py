"""Small CT series, and a scan model that is trained on them."""

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.conftest import BUNDLE
from tests.scans import write_series
from tests.workflows import configs_of, open_workflow

SIDE = 8
SHAPE = (SIDE, SIDE, 6)


def encoder(weight):
    """Return an encoder of 16 features, whose weights all have one value."""
    fill = f"lambda m: [p.data.fill_({weight}) for p in m.parameters()] and None"
    return f"$torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear({SIDE**2}, 16)).apply({fill})"


OPTIONS = {"encoder": encoder(0.01)}


def make_scans(folder):
    """Write CT series, of which one also lies there as NIfTI, as an MR, with thick slices, and with values of bytes."""
    for case in "abcd":
        array = write_series(folder / case, SHAPE, spacing=(1.0, 1.0, 2.5))
    write_series(folder / "mr", SHAPE, Modality="MR")
    for name, values, step in (("nifti", array, 2.5), ("bytes", np.clip(array, 0, 255), 2.5), ("far", array, 10)):
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([1, 1, step, 1])), folder / f"{name}.nii.gz")
    return folder


def train(scans, out, /, *overlays, **overrides):
    """Train a model of whole scans, with its files in ``out``; overlays follow those of whole scans."""
    items = [{"case_id": c, "patient": c, "image": str(scans / c), "label": i % 2} for i, c in enumerate("abcd")]
    options = {"scans": items, "in_features": 16, "spatial_size": SIDE, "epochs": 1, "class_names": ["benign", "tumor"]}
    paths = {"dataset_dir": str(out), "ckpt_dir": str(out), "output_dir": str(out / "log")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLE)
        workflow = open_workflow(
            *configs_of("train", "scan_labels", *overlays), kind=None, **{**OPTIONS, **options, **paths, **overrides}
        )
        workflow.run()
        workflow.finalize()
    return out
