"""Speed of reading a bag of 20,000 x 1,024 in half precision. ``scripts/check bench`` prints the pairs."""

import numpy as np
import pytest

from tests.benchmarks.bag_reading import FEATURES, readers, reading, write

SMALL = 500


@pytest.mark.parametrize("reader", ["read_bag", "bare"])
@pytest.mark.parametrize("layout", ["ours", "TRIDENT", "CLAM"])
def test_read_bag_speed(benchmark, tmp_path, layout, reader):
    instances = SMALL if benchmark.disabled else 20_000
    features = np.random.default_rng(0).standard_normal((instances, FEATURES)).astype(np.float16)
    path = tmp_path / "a.h5"
    write(path, features, layout)
    benchmark.group = f"read {layout}"
    benchmark(readers(path, layout)[reader])


@pytest.mark.parametrize("layout", ["ours", "TRIDENT", "CLAM"])
def test_reading_compares_equal_values(layout):
    assert reading(layout, instances=50, repeats=1).value > 0  # it asserts that the values are equal
