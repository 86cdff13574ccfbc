"""Tests of the import of optional packages."""

import json

import pytest
from monai.utils import OptionalImportError

from monai_mil_ext.utils import optional_dependency


def test_optional_dependency_imports_what_is_installed():
    assert optional_dependency("core", "json") is json
    assert optional_dependency("core", "json", "dumps") is json.dumps


@pytest.mark.parametrize(("module", "name"), [("no_such_package", ""), ("json", "no_such_name")])
def test_optional_dependency_names_the_extra_at_the_first_use(module, name):
    missing = optional_dependency("moon", module, name)
    with pytest.raises(OptionalImportError, match=r"needs: pip install monai-mil-ext\[moon\]"):
        missing()
