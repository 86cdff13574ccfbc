"""Normalized sigmoid, the target of NSFKLLoss, in the form in which tests compare it."""

from monai_mil_ext.networks.layers import log_sigmoid_scores, masked_softmax


def normalized_sigmoid(scores, mask=None, temperature=1.0, center="none"):
    """Sigmoid over the instances of each bag, divided by its sum; padding gets exactly zero."""
    return masked_softmax(log_sigmoid_scores(scores, mask, temperature, center), mask)
