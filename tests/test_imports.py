"""Which packages an import needs, and that the requirements in setup.cfg name each package that the code uses."""

import ast
import configparser
import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from monai_mil_ext.apps.doctor import CORE, EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_mil_ext"
FLOORS = ["losses", "networks", "metrics", "handlers", "transforms", "data", "inferers", "visualize", "utils", "apps"]
FLOORS += ["apps.study", "apps.study.report", "apps.study.clinical", "apps.check", "apps.bundle", "apps.federated"]
ALWAYS = {"torch", "monai", "numpy", "ignite", "yaml"}  # what an import of the package needs
BLOCKED = [
    "fire",
    "matplotlib",
    "itk",
    "tensorboard",
    "pydicom",
    "sklearn",
    "nibabel",
    "scipy",
    "PIL",
    "pandas",
    "skimage",
    "h5py",
    "tqdm",
    "openslide",
    "tifffile",
    "zarr",
    "pyarrow",
    "highdicom",
    "openpyxl",
    "transformers",
    "timm",
    "lifelines",
    "optuna",
    "mlflow",
    "dask",
    "distributed",
    "nvflare",
]
# a fork for each group of missing packages, since torch takes long to import
FINDER = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
"""
SCRIPT = """
import gc, importlib, json, os, sys, traceback
def error(floor):
    try:
        importlib.import_module(f"monai_mil_ext.{floor}")
    except Exception:
        return traceback.format_exc()
sys.meta_path.insert(0, Missing())
sys.stdout.flush()
gc.freeze()  # or the first collection in each fork copies all memory
for group in GROUPS:
    if os.fork() == 0:
        BLOCKED = set(group)
        for name in [name for name in sys.modules if name.split(".")[0] in BLOCKED]:
            del sys.modules[name]
        print(json.dumps([group, {floor: error(floor) for floor in FLOORS}]), flush=True)
        os._exit(0)
    os.wait()
"""


@cache
def errors(first, *groups):
    """Error of the import of each floor, by group of packages that are missing from after the import of ``first``."""
    code = f"import {first}\nGROUPS, FLOORS = {groups!r}, {FLOORS!r}\n{FINDER}{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith('[["')]
    return {tuple(group): result for group, result in map(json.loads, lines)}


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_where_nothing_optional_is(floor):
    assert errors("torch", tuple(BLOCKED))[tuple(BLOCKED)][floor] is None


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("package", BLOCKED)
def test_a_floor_imports_without_a_package(package, floor):
    assert errors("monai", *[(name,) for name in BLOCKED])[(package,)][floor] is None


USES = {  # what is used, and what to install for it
    "metrics.bag_values([0, 1], np.eye(2))": "scikit-learn",
    "data.find_series(Path('s'))": "monai-mil-ext[dicom]",
    "data.find_annotation('s')": "monai-mil-ext[dicom]",
    "data.ScanReader()": "itk-io",
    "transforms.LoadOrStatus(transforms.LoadScand('image'), {'image': (2,)})({'image': 'a.nii.gz'})": "itk-io",
    "data.write_nifti('b.nii', MetaTensor(torch.zeros(1, 2, 2, 2)))": "nibabel",
    "data.write_bag('a.h5', {'features': np.eye(2)})": "h5py",
    "transforms.LoadOrStatus(transforms.LoadBagd('image'), {'image': (2,)})({'image': 'b.h5'})": "h5py",
    "data.CellImages('c').read('a.png')": "pillow",
    "data.read_bag('z.zarr')": "monai-mil-ext[zarr]",
    "data.load_cohort('t.xlsx')": "monai-mil-ext[excel]",
    "data.SlideFile('a.svs')": "monai-mil-ext[wsi]",
    "data.OtsuTissue()(np.zeros((9, 9, 3), np.uint8))": "scipy",
    "visualize.plot_attention_mass({'a': {'x': [[0, 1], [0, 1]]}})": "monai-mil-ext[figures]",
    "networks.encoders.transformers_encoder('x')": "monai-mil-ext[encoders]",
    "apps.study.check_packages()": "monai-mil-ext[study]",
    "apps.study.Study([{}], 's', None, 'ABMIL')": "monai-mil-ext[study]",
    "apps.study.Selection(trials=1).choose(lambda settings, report=None: 0.0, 'selection')": "monai-mil-ext[study]",
    "apps.study.tracking.log_report('x', 'x', Path('.'))": "monai-mil-ext[tracking]",
    "list(utils.run_tasks(abs, [1], scheduler='local'))": "monai-mil-ext[scale]",
    "networks.encoders.timm_encoder('x')": "monai-mil-ext[timm]",
    "data.FeatureStatistics.from_items([{'image': np.eye(2)}])": "scikit-learn",
}
USE = """
import json, os, pathlib, sys, tempfile
import numpy as np, torch
from pathlib import Path
sys.meta_path.insert(0, Missing())
from monai.data import MetaTensor
import monai_mil_ext.apps.study.tracking
from monai_mil_ext import apps, data, metrics, networks, transforms, utils, visualize
os.chdir(tempfile.mkdtemp())
for name, content in FILES.items():
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
Path("z.zarr").mkdir()
def message(use):
    try:
        eval(use)
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return f"{type(error).__name__}: {error}"
print(json.dumps({use: message(use) for use in USES}))
"""
FILES = {"a.nii.gz": b"x", "a.svs": b"x", "t.xlsx": b"PK", "s/1.dcm": bytes(128) + b"DICM" + b"x" * 60, "c/a.png": b"x"}
FILES["b.h5"] = b"\x89HDF\r\n\x1a\n" + bytes(600)


@cache
def messages():
    """Root cause of the error of each use, where nothing optional is."""
    code = f"BLOCKED, USES, FILES = {set(BLOCKED)}, {list(USES)}, {FILES}\n{FINDER}{USE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("use", USES)
def test_a_missing_package_is_said_in_one_line_with_the_command(use):
    (line,) = (messages()[use] or "no error").splitlines()
    assert line.split(":")[0] in ("ImportError", "OptionalImportError")
    assert re.search(r"pip install (\S+?)\.?(?: \(|$)", line)[1] == USES[use]


ALONE = """
import gc, json, monai, sys
before, passes = set(sys.modules), []
gc.callbacks.append(lambda phase, info: phase == "stop" and passes.append(info["generation"]))
import monai_mil_ext
print(json.dumps([sorted(set(sys.modules) - before), passes, gc.isenabled()]))
"""


def test_an_import_of_the_package_takes_the_time_of_its_own_modules():
    """It imports nothing that MONAI does not, which imports much of what is installed, and looks for no garbage."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, cwd=ROOT)
    new, passes, collects = json.loads(done.stdout.splitlines()[-1])
    assert {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names) == {"monai_mil_ext"}
    assert len(passes) <= 2  # one before and one after it; else 30, or 1,800 where MONAI is imported by it
    assert collects


def nodes(*kinds):
    """All nodes of some kinds with their files, without the application that runs in an environment of its own."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "_monailabel.py":
            yield from ((path, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def uses():
    """File, extra (empty for none) and module of every package that is imported at its first use."""
    for path, call in nodes(ast.Call):
        if isinstance(call.func, ast.Name) and call.func.id == "optional_dependency":
            extra, module = (ast.literal_eval(argument) for argument in call.args[:2])
            yield path.relative_to(PACKAGE), extra, module.partition(".")[0]


def test_files_are_read_in_data_alone():
    """The contract on formats, for packages that are imported at their first use."""
    formats = configuration()["importlinter:contract:formats"]["forbidden_modules"].split()
    assert [(str(path), m) for path, _, m in uses() if m in formats and path.parts[0] != "data"] == []


def for_types_only():
    """Line ranges of ``if TYPE_CHECKING``."""
    tests = [(path, node) for path, node in nodes(ast.If) if ast.unparse(node.test) == "TYPE_CHECKING"]
    return [(path, range(node.lineno, node.end_lineno + 1)) for path, node in tests]


def test_only_what_is_always_needed_is_imported_at_once():
    others = set(sys.stdlib_module_names) | ALWAYS | {"monai_mil_ext"}
    types = for_types_only()
    found = []
    for path, node in nodes(ast.Import, ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if not getattr(node, "level", 0) and not any(path == file and node.lineno in lines for file, lines in types):
            found += [f"{path.name}: {m}" for m in modules if m.partition(".")[0] not in others]
    assert found == []


def configuration():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@cache
def requirements():
    """Names that pip installs, by extra; an empty extra for those of the package itself."""
    config = configuration()
    texts = {**config["options.extras_require"], "": config["options"]["install_requires"]}
    return {extra: set(re.findall(r"^[\w-]+(?:\[.*\])?", text, re.MULTILINE)) for extra, text in texts.items()}


def distribution(module):
    """Names that pip knows a module by."""
    return {name.lower().replace("_", "-") for name in packages_distributions().get(module, [module])}


def brought_by(names):
    """Names with those of their own requirements: Pillow comes with TensorBoard, SciPy with scikit-learn."""
    own = {
        name: {re.split(r"[ <>=!~;\[(]", line)[0].lower().replace("_", "-") for line in requires(name) or ()}
        for name in names
    }
    return set(names).union(*own.values())


@pytest.mark.parametrize(("extra", "module"), sorted({use[1:] for use in uses()}))
def test_a_package_is_a_requirement_of_the_extra_that_its_error_names(extra, module):
    if extra == "timm":
        assert requirements()["timm"] == {"timm"}  # not installed for tests
        return
    assert distribution(module) & brought_by(requirements()[extra])


def test_the_requirements_are_few():
    named_by_design = {"torch", "monai", "pytorch-ignite", "itk-io", "tensorboard", "pyyaml"}
    others = {
        "fire",
        "h5py",
        "jinja2",
        "jsonschema",
        "nibabel",
        "scikit-learn",
        "tqdm",
    }  # bundles, features, pages (torch has it too), records, NIfTI, metrics
    assert requirements()[""] == named_by_design | others


def test_all_takes_every_extra_for_users():
    (alias,) = requirements()["all"]
    extras = set(re.findall(r"\[(.*)\]", alias)[0].split(","))
    assert extras == set(requirements()) - {"", "all", "benchmark", "docs", "label", "test"} == set(EXTRAS)


def test_the_self_check_names_the_requirements():
    core, named = requirements()[""], set(CORE)
    assert named - {"numpy"} <= core
    assert {extra: set(names) - requirements()[extra] for extra, names in EXTRAS.items()} == {e: set() for e in EXTRAS}
