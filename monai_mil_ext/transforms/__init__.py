"""Transforms of bags, in array and dictionary form."""

from .bag_output import (
    MaskToInstanceLabel,
    MaskToInstanceLabelD,
    MaskToInstanceLabeld,
    MaskToInstanceLabelDict,
    SplitBagOutputD,
    SplitBagOutputd,
    SplitBagOutputDict,
)
from .encode import EncodeInstances, EncodeInstancesD, EncodeInstancesd, EncodeInstancesDict
from .feature_jitter import RandFeatureJitter, RandFeatureJitterD, RandFeatureJitterd, RandFeatureJitterDict
from .instance_subset import (
    RandSampleInstances,
    RandSampleInstancesD,
    RandSampleInstancesd,
    RandSampleInstancesDict,
    RandTokenDrop,
    RandTokenDropD,
    RandTokenDropd,
    RandTokenDropDict,
)
from .load_bag import (
    LoadBag,
    LoadBagD,
    LoadBagd,
    LoadBagDict,
    LoadBagLabel,
    LoadBagLabelD,
    LoadBagLabeld,
    LoadBagLabelDict,
)
from .load_scan import LoadScan, LoadScanD, LoadScand, LoadScanDict
from .slice_scores import SliceScoresToVolume, SliceScoresToVolumeD, SliceScoresToVolumed, SliceScoresToVolumeDict
from .slices import SliceBag, SliceBagD, SliceBagd, SliceBagDict, Slices

__all__ = [
    "EncodeInstances",
    "EncodeInstancesD",
    "EncodeInstancesDict",
    "EncodeInstancesd",
    "LoadBag",
    "LoadBagD",
    "LoadBagDict",
    "LoadBagLabel",
    "LoadBagLabelD",
    "LoadBagLabelDict",
    "LoadBagLabeld",
    "LoadBagd",
    "LoadScan",
    "LoadScanD",
    "LoadScanDict",
    "LoadScand",
    "MaskToInstanceLabel",
    "MaskToInstanceLabelD",
    "MaskToInstanceLabelDict",
    "MaskToInstanceLabeld",
    "RandFeatureJitter",
    "RandFeatureJitterD",
    "RandFeatureJitterDict",
    "RandFeatureJitterd",
    "RandSampleInstances",
    "RandSampleInstancesD",
    "RandSampleInstancesDict",
    "RandSampleInstancesd",
    "RandTokenDrop",
    "RandTokenDropD",
    "RandTokenDropDict",
    "RandTokenDropd",
    "SliceBag",
    "SliceBagD",
    "SliceBagDict",
    "SliceBagd",
    "SliceScoresToVolume",
    "SliceScoresToVolumeD",
    "SliceScoresToVolumeDict",
    "SliceScoresToVolumed",
    "Slices",
    "SplitBagOutputD",
    "SplitBagOutputDict",
    "SplitBagOutputd",
]
