"""Tests of the content of a config that an expression can do without."""

import pytest
from monai.bundle import ConfigParser

from monai_mil_ext.apps.bundle import content_or_reason

HERE = "$monai_mil_ext.apps.bundle.content_or_reason('part')"


def evaluate(part, **more):
    parser = ConfigParser({"imports": ["$import monai_mil_ext"], "part": part, "here": HERE, **more})
    parser.get_parsed_content("imports")
    return parser.get_parsed_content("here")


def test_content_or_reason_builds_the_part_once():
    assert evaluate({"_target_": "builtins.dict", "a": "@b"}, b=3) == {"a": 3}


def test_content_or_reason_states_what_is_not_at_hand():
    lost = {"_target_": "builtins.open", "file": "/lost/secret.pt"}
    assert evaluate({"_target_": "builtins.dict", "inner": lost}) == "No such file or directory"


def test_content_or_reason_hides_no_mistake():
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        evaluate({"_target_": "builtins.int", "x": 1})


def test_content_or_reason_needs_a_config():
    with pytest.raises(ValueError, match="`name` must be an id of the config that calls, got 'x' outside"):
        content_or_reason("x")
