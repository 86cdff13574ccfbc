"""Tests of the keys of bags and of their status."""

import pytest
from monai.utils import CommonKeys

from monai_mil_ext.utils import RESEARCH_USE, BagKeys, BagStatus


def test_bag_keys_are_strings_in_dictionaries_and_files():
    assert {BagKeys.MASK: 1} == {"mask": 1}
    assert f"{BagKeys.SLICE_INDEX}" == BagKeys.SLICE_INDEX.value == "slice_index"


def test_bag_keys_do_not_repeat_those_of_monai():
    assert not {str(key) for key in BagKeys} & {str(key) for key in CommonKeys}
    assert len({str(key) for key in BagKeys}) == len(BagKeys.__members__)


def test_bag_keys_refuses_an_unknown_key():
    with pytest.raises(ValueError, match="'masks' is not a valid BagKeys"):
        BagKeys("masks")


def test_bag_status_is_the_text_of_results():
    assert [str(status) for status in BagStatus] == ["done", "empty"]
    assert RESEARCH_USE == "research use only"
