"""Every network that exports gives the same numbers in onnxruntime, for bags of any size."""

import pytest

from tests.contracts.full_laws import it_runs_in_onnxruntime
from tests.contracts.laws import claimed
from tests.contracts.test_nets import MASK, X, every_net


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*dynamic_axes.*", "ignore:.*LeafSpec.*")
@every_net
def test_it_runs_in_onnxruntime(make):
    if claimed(it_runs_in_onnxruntime, make):
        it_runs_in_onnxruntime(make, X, MASK)
