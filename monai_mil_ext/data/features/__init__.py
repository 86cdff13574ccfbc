"""Instance features computed once and kept in files."""

from .bad_cases import BadCasesError
from .bag_index import BagIndex
from .chunk_loader import ChunkLoader
from .feature_cache import FeatureCache
from .feature_extraction import FeatureExtraction
from .fingerprints import fingerprint, model_fingerprint
from .identities import content_identity, input_identity, item_identity
from .joined_files import JoinedFiles, join_bag_files, read_sources

__all__ = [
    "BadCasesError",
    "BagIndex",
    "ChunkLoader",
    "FeatureCache",
    "FeatureExtraction",
    "JoinedFiles",
    "content_identity",
    "fingerprint",
    "input_identity",
    "item_identity",
    "join_bag_files",
    "model_fingerprint",
    "read_sources",
]
