"""Small bags for tests of bag_classifier, and its scripts."""

import numpy as np
import pytest

from tests.bundles.scripts_of import BUNDLES, scripts_of
from tests.workflows import causes, configs_of, open_workflow

BUNDLE = BUNDLES / "bag_classifier"


def scripts(module):
    """A module of the bundle's scripts."""
    return scripts_of("bag_classifier", module)


def bags(num_bags=40, seed=0, features=8, shift=4.0):
    """Bags of 2 to 6 instances; in every second bag one instance's first feature is moved."""
    draw = np.random.default_rng(seed)
    made = {}
    for i in range(num_bags):
        instances = draw.normal(size=(draw.integers(2, 7), features)).astype(np.float32)
        instances[0, 0] += shift * (i % 2)
        made[str(i)] = (i % 2, instances)
    return made


def infer_bags(source, models, output, error=None, **override):
    """Run the inference of bag_classifier in its folder; with ``error``, it must fail for this reason."""
    places = {"input": str(source), "ckpt_dir": str(models), "output_dir": str(output)}
    workflow = open_workflow(*configs_of("inference"), kind="infer", **places, **override)
    if error is None:
        workflow.run()
        return
    with pytest.raises(RuntimeError, match="Failed to") as raised:
        workflow.run()
    assert error in causes(raised.value)
