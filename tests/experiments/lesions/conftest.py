"""A small protocol with features of noise, in which a lesion shifts one feature."""

import numpy as np
import pytest

from monai_mil_ext.data import write_bag
from monai_mil_ext.utils import write_json


@pytest.fixture(scope="module")
def small():
    """Protocol of sixty scans of a cohort and three methods."""
    from dataclasses import replace

    from experiments.lesions.settings import read_protocol

    whole = read_protocol()
    return replace(whole, num_scans=60, training={**whole.training, "epochs": 25, "learning_rate": 0.01})


@pytest.fixture(scope="module")
def encoded(small, tmp_path_factory):
    """Folder of features (N, 8) of the cohorts and tests of seed 1, as if they were drawn and encoded."""
    folder = tmp_path_factory.mktemp("scans")
    scans = [scan for name in small.cohorts for scan in small.cohort(name, 1)]
    scans += [scan for name in small.tests for scan in small.test(name, 1)]
    for scan in dict.fromkeys(scans):
        rng = np.random.default_rng([scan.index, scan.num_lesions])
        labels = np.zeros(30, dtype=int)
        for k in range(scan.num_lesions):
            start = 10 * k + rng.integers(1, 5)
            labels[start : start + 4] = 1
        features = rng.normal(size=(30, 8)).astype(np.float32)
        features[:, 0] += 4 * labels
        write_bag(folder / "features" / f"{scan.case_id}.h5", {"features": features, "instance_label": labels})
    write_json(folder / "features.json", {"folder": "features"})
    return folder
