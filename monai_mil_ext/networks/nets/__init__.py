"""Whole networks, one paper a file."""

from .abmil import ABMIL
from .bag_net import BagNet, BagOutput, WithBagOutput

__all__ = ["ABMIL", "BagNet", "BagOutput", "WithBagOutput"]
