"""Normalized sigmoid, the target of NSFKLLoss, as a reference for tests."""

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.nsf import log_sigmoid_scores


def normalized_sigmoid(scores, mask=None, temperature=1.0, center="none"):
    """Compute the sigmoid over the instances of each bag, divided by its sum; padding gets exactly zero."""
    return masked_softmax(log_sigmoid_scores(scores, mask, temperature, center), mask)
