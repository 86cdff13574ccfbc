"""Transforms between 3D scans and bags of slices or tokens."""

from .body_intensity import ScaleBodyIntensity, ScaleBodyIntensityD, ScaleBodyIntensityd, ScaleBodyIntensityDict
from .ct_windows import CTWindows, CTWindowsD, CTWindowsd, CTWindowsDict
from .load_mask import LoadMask, LoadMaskD, LoadMaskd, LoadMaskDict
from .load_scan import LoadScan, LoadScanD, LoadScand, LoadScanDict
from .scores_to_volume import SliceScoresToVolume, SliceScoresToVolumeD, SliceScoresToVolumed, SliceScoresToVolumeDict
from .slice_bag import SliceBag, SliceBagD, SliceBagd, SliceBagDict, SlicedScan
from .slice_selection import SliceSelection
from .slice_source import scan_preprocessing, scan_source
from .slice_spacing import CheckSliceSpacing, CheckSliceSpacingD, CheckSliceSpacingd, CheckSliceSpacingDict
from .volume_tokens import (
    TokenizedVolume,
    TokenScoresToVolume,
    TokenScoresToVolumeD,
    TokenScoresToVolumed,
    TokenScoresToVolumeDict,
    VolumeTokens,
    VolumeTokensD,
    VolumeTokensd,
    VolumeTokensDict,
)

__all__ = [
    "CTWindows",
    "CTWindowsD",
    "CTWindowsDict",
    "CTWindowsd",
    "CheckSliceSpacing",
    "CheckSliceSpacingD",
    "CheckSliceSpacingDict",
    "CheckSliceSpacingd",
    "LoadMask",
    "LoadMaskD",
    "LoadMaskDict",
    "LoadMaskd",
    "LoadScan",
    "LoadScanD",
    "LoadScanDict",
    "LoadScand",
    "ScaleBodyIntensity",
    "ScaleBodyIntensityD",
    "ScaleBodyIntensityDict",
    "ScaleBodyIntensityd",
    "SliceBag",
    "SliceBagD",
    "SliceBagDict",
    "SliceBagd",
    "SliceScoresToVolume",
    "SliceScoresToVolumeD",
    "SliceScoresToVolumeDict",
    "SliceScoresToVolumed",
    "SliceSelection",
    "SlicedScan",
    "TokenScoresToVolume",
    "TokenScoresToVolumeD",
    "TokenScoresToVolumeDict",
    "TokenScoresToVolumed",
    "TokenizedVolume",
    "VolumeTokens",
    "VolumeTokensD",
    "VolumeTokensDict",
    "VolumeTokensd",
    "scan_preprocessing",
    "scan_source",
]
