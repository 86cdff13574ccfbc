"""Small cohorts for tests of the check."""

import nibabel as nib
import numpy as np
import torch

from monai_mil_ext.apps.check import CheckSettings, check_table
from monai_mil_ext.data import write_bag
from monai_mil_ext.utils import write_csv

BAGS = CheckSettings("bags", num_folds=3)


def bag_rows(folder, number=8, **attributes):
    """Write bags of two classes, and return the rows of their table."""
    draw = torch.Generator().manual_seed(0)
    for i in range(number):
        features = torch.rand(6, 4, generator=draw)
        write_bag(folder / f"b{i}.h5", {"features": features}, {key: of(i) for key, of in attributes.items()})
    return [{"case_id": f"c{i}", "patient": f"p{i}", "image": f"b{i}.h5", "label": i % 2} for i in range(number)]


def scan_rows(folder, number=8, values=(-1000, 400), suffix=".nii.gz", shape=(12, 11, 10)):
    """Write scans of two classes under the names of patients, and return the rows of their table."""
    draw = np.random.default_rng(0)
    for i in range(number):
        voxels = draw.integers(*values, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 3, 1])), folder / f"DOE_JOHN_{i}{suffix}")
    return [
        {"case_id": f"c{i}", "patient": f"p{i}", "image": f"DOE_JOHN_{i}{suffix}", "label": i % 2}
        for i in range(number)
    ]


def check(folder, rows, settings=BAGS, **options):
    """Check a table of rows."""
    write_csv(folder / "cohort.csv", rows)
    return check_table(folder / "cohort.csv", settings, **options)


def messages(problems, case=None):
    """Return the messages of problems, of one case or of all, in one text."""
    return "\n".join(problem.message for problem in problems if case is None or problem.case == case)
