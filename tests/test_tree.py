"""Rules about the layout and the wording of the tree."""

import ast
import importlib
import pkgutil
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import monai_mil_ext

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_mil_ext"
SOURCES = [path for folder in (PACKAGE, ROOT / "bundles", ROOT / "scripts") for path in sorted(folder.rglob("*.py"))]
FOLDERS = sorted({path.parent for path in SOURCES})
MODULES = [path for path in SOURCES if path.is_relative_to(PACKAGE) and path.name != "__init__.py"]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CONFIGS = sorted(path for path in ROOT.glob("[!.]*/**/configs/*") if path.suffix in (".yaml", ".json", ".conf"))
PACKAGES = [m.name for m in pkgutil.walk_packages(monai_mil_ext.__path__, "monai_mil_ext.") if m.ispkg]
CLAUSES = ("what", "whether", "how", "where", "of", "who", "when", "which", "that", "as", "beside", "for", "in")
INTERNAL = ["networks.layers.packed", "networks.layers.compact", "data.bags.bag_rows"]
EXPORTED = {"BagFileError"}  # defined in an internal module


def name(path):
    return str(path.relative_to(ROOT))


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_a_folder_has_at_most_15_modules(folder):
    assert len([path for path in folder.glob("*.py") if not path.name.startswith("__")]) <= 15


def test_no_two_modules_of_the_package_share_a_name():
    assert [module for module, count in Counter(path.name for path in MODULES).items() if count > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_each_module_has_a_test_file_by_its_name(path):
    assert f"test_{path.stem.strip('_')}.py" in {test.name for test in TESTS}


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_no_test_imports_a_test(path):
    """Shared helpers live in modules of their own, so that a test file can be moved or deleted alone."""
    imports = [f"{node.module}." for node in nodes(path, ast.ImportFrom)]
    imports += [f".{alias.name}" for node in nodes(path, ast.ImportFrom, ast.Import) for alias in node.names]
    assert [module for module in imports if re.search(r"(^|\.)test_\w+", module) and "torch" not in module] == []


def test_the_bundles_are_the_four_that_are_shipped():
    bundles = {path.parent.name for path in (ROOT / "bundles").glob("*/configs")}
    assert bundles == {"bag_classifier", "instance_encoder", "scan_mil", "wsi_mil"}


def test_python_in_bundles_stays_small():
    """Bundles hold the Python that they need to run; experiments live in scripts/experiments."""
    assert sum(path.read_text().count("\n") for path in (ROOT / "bundles").rglob("*.py")) <= 1300


def test_no_two_configs_are_the_same_bytes():
    contents = Counter(path.read_bytes() for path in CONFIGS)
    assert len(CONFIGS) > 20
    assert [name(path) for path in CONFIGS if contents[path.read_bytes()] > 1] == []


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.suffix == ".yaml"], ids=name)
def test_configs_address_parts_by_name(path):
    """A number would address another part as soon as one is added before it."""
    assert re.findall(r"[\w@%]#\d+|::\d+", path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_docstring_opens_with_a_clause(path):
    documented = nodes(path, ast.Module, ast.ClassDef, ast.FunctionDef)
    summaries = [(ast.get_docstring(node) or "-").splitlines()[0] for node in documented]
    assert [text for text in summaries if text.split()[0].strip(",.:").lower() in CLAUSES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_exports_internal_names(package):
    public = set(importlib.import_module(package).__all__)
    internal = {n for m in INTERNAL for n in importlib.import_module(f"monai_mil_ext.{m}").__all__} - EXPORTED
    assert [text for text in public if text.startswith("_")] == []
    assert public & internal == set()


def test_contributing_names_all_that_the_tree_has():
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("needs a git checkout")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {path.split("/")[0] for path in listed if "/" in path}
    folders |= {path.split("/")[1] for path in listed if re.match(r"monai_mil_ext/\w+/", path)}
    assert [path for path in sorted(folders) if not re.search(rf"^ *{re.escape(path)}/", text, re.MULTILINE)] == []
