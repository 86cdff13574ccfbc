"""Instance features computed once and kept in files."""

from .bad_cases import BadCasesError
from .chunk_loader import ChunkLoader
from .feature_cache import FeatureCache
from .feature_extraction import FeatureExtraction
from .fingerprints import fingerprint

__all__ = [
    "BadCasesError",
    "ChunkLoader",
    "FeatureCache",
    "FeatureExtraction",
    "fingerprint",
]
