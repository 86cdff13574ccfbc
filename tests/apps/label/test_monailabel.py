"""Tests of the classes of MONAI Label that the app uses, where ``monailabel`` is not installed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from monai.utils import OptionalImportError

from monai_mil_ext.apps.label import UncertaintyScoring, _monailabel


@pytest.mark.parametrize("name", [n for n in _monailabel.__all__ if n != "HTTPException" or not find_spec("fastapi")])
def test_monailabel_classes_raise_only_when_used(name):
    placeholder = getattr(_monailabel, name)
    assert isinstance(placeholder, type)
    with pytest.raises(OptionalImportError, match=r"monailabel|fastapi"):
        placeholder()


@pytest.mark.slow(buys="the package imports without MONAI Label")
def test_monailabel_is_needed_by_the_app_and_not_by_the_package():
    with pytest.raises(OptionalImportError, match="monailabel"):
        UncertaintyScoring(lambda request: {}, "a")
    code = (
        "import sys, monai_mil_ext; print([n for n in ('label', 'study') if f'monai_mil_ext.apps.{n}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
