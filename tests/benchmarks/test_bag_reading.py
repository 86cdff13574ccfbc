"""Cost of reading a bag of 20,000 x 1,024 in half precision. ``scripts/check bench`` prints the pairs."""

import numpy as np
import pytest

from monai_mil_ext.data import read_bag
from tests.benchmarks.bag_reading import FEATURES, bare, rows, write

SMALL = 500


@pytest.mark.parametrize("reader", ["ours", "reference"])
@pytest.mark.parametrize("layout", ["ours", "TRIDENT", "CLAM"])
def test_read_whole(benchmark, tmp_path, layout, reader):
    instances = SMALL if benchmark.disabled else 20_000
    features = np.random.default_rng(0).standard_normal((instances, FEATURES)).astype(np.float16)
    path = tmp_path / "a.h5"
    write(path, features, layout)
    raw = (lambda: np.fromfile(path.with_suffix(".bin"), np.float16)) if layout == "ours" else (lambda: bare(path))
    benchmark.group = f"read {layout}"
    benchmark((lambda: read_bag(path)) if reader == "ours" else raw)


def test_the_rows_of_the_table_are_there_and_read_the_same():
    assert [(row.name, row.goal) for row in rows(instances=50, repeats=1)] == [
        ("read ours / raw bytes", 1.3),
        ("read TRIDENT / bare h5py[:]", 1.1),
        ("read CLAM / bare h5py[:]", 1.1),
    ]
