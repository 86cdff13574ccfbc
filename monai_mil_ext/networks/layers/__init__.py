"""Tensor operations and single layers."""

from .masked import bag_pool, masked_softmax, zero_padding

__all__ = ["bag_pool", "masked_softmax", "zero_padding"]
