"""Tensor operations and single layers."""

from .chain_smoother import ChainSmoother
from .masked import attention_pool, masked_log_softmax, masked_max, masked_softmax
from .norms import LayerNormFp32, RMSNormFp32
from .spectral import SpectralLinear

__all__ = [
    "ChainSmoother",
    "LayerNormFp32",
    "RMSNormFp32",
    "SpectralLinear",
    "attention_pool",
    "masked_log_softmax",
    "masked_max",
    "masked_softmax",
]
