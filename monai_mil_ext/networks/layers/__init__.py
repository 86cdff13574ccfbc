"""Masked tensor operations and single layers."""

from .masked import bag_pool, masked_log_softmax, masked_softmax, zero_padding
from .maximum import masked_max
from .norms import WideLayerNorm, WideRMSNorm, make_norm
from .nsf import log_sigmoid_scores
from .packing import pack, packed_places, unpack
from .real_rows import RealRows, find_real_rows, pool_rows, split_rows, spread_rows, take_rows
from .smooth import ChainSmoother
from .spectral import SpectralLinear, spectral_norm_of

__all__ = [
    "ChainSmoother",
    "RealRows",
    "SpectralLinear",
    "WideLayerNorm",
    "WideRMSNorm",
    "bag_pool",
    "find_real_rows",
    "log_sigmoid_scores",
    "make_norm",
    "masked_log_softmax",
    "masked_max",
    "masked_softmax",
    "pack",
    "packed_places",
    "pool_rows",
    "spectral_norm_of",
    "split_rows",
    "spread_rows",
    "take_rows",
    "unpack",
    "zero_padding",
]
