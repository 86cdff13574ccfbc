"""Tests of packages that are imported at their first use."""

import copy
import inspect
import json
import re
import sys

import pytest
from monai.utils import OptionalImportError

from monai_mil_ext.utils import optional_dependency


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package ``moon`` with the given text."""

    def write(text):
        (tmp_path / "moon.py").write_text(text)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    sys.modules.pop("moon", None)


def test_optional_dependency_has_what_the_module_has():
    module, dumps = optional_dependency("core", "json"), optional_dependency("core", "json", "dumps")
    assert module.dumps is json.dumps
    assert dumps({"a": 1}) == '{"a": 1}'
    assert optional_dependency("core", "numpy").__version__ == __import__("numpy").__version__
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = module.no_such_name
    with pytest.raises(json.decoder.JSONDecodeError, match="Expecting value"):
        optional_dependency("core", "json.decoder").JSONDecoder().decode("")


def test_optional_dependency_waits_for_the_first_use(package):
    package("value = 3")
    moon = optional_dependency("moon", "moon")
    for look in (repr, inspect.isclass, inspect.unwrap, callable, copy.copy):
        look(moon)
        assert "moon" not in sys.modules
    assert copy.copy(moon).value == moon.value == 3


@pytest.mark.parametrize(
    ("extra", "module", "name", "message"),
    [
        ("moon", "no_such_package", "", "`import no_such_package` needs: pip install monai-mil-ext[moon]"),
        ("moon", "json", "no_such_name", "`from json import no_such_name` needs: pip install monai-mil-ext[moon]"),
        ("", "no_such_package.part", "", "`import no_such_package.part` needs: pip install no_such_package"),
        ("", "sklearn.no_such_part", "", "`import sklearn.no_such_part` needs: pip install scikit-learn"),
    ],
)
def test_optional_dependency_says_in_one_line_how_to_install_what_is_missing(extra, module, name, message):
    missing = optional_dependency(extra, module, name)
    for use in (missing, lambda: missing.part, lambda: missing.part):
        with pytest.raises(OptionalImportError, match=re.escape(message)) as error:
            use()
        (line,) = str(error.value).splitlines()
        assert line.startswith(message)
        assert error.value.__cause__ is error.value.__context__ is None


def test_optional_dependency_does_not_advise_to_install_what_is_broken(package):
    package("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(OptionalImportError, match=r"^`import moon` must succeed, got RuntimeError\.$") as error:
        _ = optional_dependency("moon", "moon").value
    assert "nms" in str(error.value.__cause__)


def test_optional_dependency_names_what_a_package_lacks(package):
    package("import no_such_package")
    with pytest.raises(OptionalImportError, match=r"pip install monai-mil-ext\[moon\] \(No module named 'no_such_pac"):
        _ = optional_dependency("moon", "moon").value


def test_an_exception_of_a_missing_package_is_reported_as_missing():
    """`except` looks its classes up only when there is an error, which must stay the one about the package."""
    missing = optional_dependency("moon", "no_such_package")

    def read():
        try:
            return missing.read("file")
        except missing.errors.InvalidFileError:
            return None

    with pytest.raises(OptionalImportError, match="pip install"):
        read()
