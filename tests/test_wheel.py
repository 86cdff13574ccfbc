"""The wheel in an environment that has nothing else: what is in it, what it needs, and that it works."""

import contextlib
import importlib.metadata as installed
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from monai_mil_ext.data import write_bag

ROOT = Path(__file__).parents[1]
PARTS = ("monai_mil_ext", "bundles", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
SERVER = ("monailabel", "pydicom-seg")  # what the extra `label` is for


def run(*command, cwd):
    """Lines that a command printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def tracked(*names):
    """Files of the repository in folders of these names, or with these names."""
    return run("git", "ls-files", *names, cwd=ROOT)


def needs(lines, extras):
    """Requirements among lines of metadata, of a package or its extras."""
    found = [Requirement(line) for line in lines or ()]
    return [r for r in found if not r.marker or any(r.marker.evaluate({"extra": name}) for name in ("", *extras))]


def link_what_it_needs(wheel, site, *extras):
    """Link the installed files of all that a wheel needs, whose pins are the same here, in place of downloads.

    pip installs the rest, or another version if one of these does not fit, and so decides what is enough.
    """
    (own,) = installed.distributions(path=[str(wheel)])
    there = {package.name.lower() for package in installed.distributions(path=[str(site)])}
    todo, seen = needs(own.requires, extras), set()
    while todo:
        need = todo.pop()
        if (key := (need.name.lower(), *sorted(need.extras))) in seen:
            continue
        seen.add(key)
        with contextlib.suppress(installed.PackageNotFoundError):
            package = installed.distribution(need.name)
            todo += needs(package.requires, need.extras)
            if package.name.lower() not in there:
                link_files(package, site)


def link_files(package, site):
    """Link the files of an installed package and their bytecode into another folder of packages."""
    for file in package.files:
        source = Path(file.locate())
        bytecode = importlib.util.cache_from_source(source) if file.suffix == ".py" else source
        for path in {source, Path(bytecode)}:
            target = site / path.relative_to(package.locate_file(""))
            if ".." not in file.parts and path.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(path, target)


def link_or_copy(source, target):
    """Link a file, or copy it where the other folder is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def label_pins(folder):
    """Those of scripts/label_server: its own before the others."""
    files = [(ROOT / name).read_text() for name in ("constraints.txt", "scripts/label_constraints.txt")]
    pinned = dict(line.split("==") for text in files for line in text.splitlines() if not line.startswith("#"))
    (folder / "pins.txt").write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
    return folder / "pins.txt"


def told_by(python, cwd):
    """Exit status and lines of ``python -m monai_mil_ext doctor``."""
    command = [python, "-m", "monai_mil_ext", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout.splitlines()


def faults_of(lines):
    """Packages that do not import, and why."""
    return dict(found for line in lines for found in re.findall(r"([\w-]+) \S+ does not import \((.*?)\)", line))


def write_cohort(folder):
    """Write 24 small bags, and a table with two classes in words and an age."""
    rng, rows = np.random.default_rng(0), ["case_id,patient,image,label,age"]
    for i in range(24):
        write_bag(folder / f"case_{i}.h5", {"features": rng.normal(i % 2, 1, (9, 4)).astype(np.float32)})
        rows.append(f"case_{i},p{i},case_{i}.h5,{['benign', 'malignant'][i % 2]},{50 + i}")
    (folder / "cohort.csv").write_text("\n".join(rows))


def run_study(python, folder):
    """Run a study of small bags in the copied bundle, and predict the cohort by its model."""
    write_cohort(folder)
    bundle = folder / "bag_classifier"
    command = (python, "-m", "monai.bundle", "run", "--config_file")
    few = ("--methods", "ABMIL", "--num_folds", "2", "--epochs", "2", "--num_samples", "20", "--covariates", "age")
    run(*command, "configs/study.yaml", "--table", "../cohort.csv", *few, cwd=bundle)
    assert "AUROC" in (bundle / "study/report.html").read_text()
    model = ("--ckpt_dir", "study/models/ABMIL", "--input", "../cohort.csv", "--output_dir", "predicted")
    run(*command, "configs/inference.yaml", *model, cwd=bundle)
    assert (bundle / "predicted/predictions.csv").read_text().count("\n") == 25


def check_label_server(wheel, pip, python, folder):
    """Install MONAI Label with the extra of the wheel, and have it list the app."""
    pins = label_pins(folder)
    run(*pip, "-c", pins, f"{wheel}[label]", cwd=folder)
    run(*pip, "-c", pins, "--no-deps", *SERVER, cwd=folder)
    code = "import monailabel.app, pydicom; print(pydicom.__version__)"
    assert run(python, "-c", code, cwd=folder)[-1].startswith("2.")
    assert "mil" in " ".join(run(python, "-m", "monailabel.main", "apps", cwd=folder)).split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked(*PARTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.mark.slow(buys="the wheel holds the package and nothing else")
def test_it_has_the_package_and_the_app_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        told = file.read("monai_mil_ext-0.2.0.dist-info/METADATA").decode()
    own = [name for name in names if name.startswith("monai_mil_ext/")]
    assert sorted(name.removeprefix("monai_mil_ext/") for name in own if name.endswith(".py")) == sorted(
        str(path.relative_to(ROOT / "monai_mil_ext"))
        for path in (ROOT / "monai_mil_ext").rglob("*.py")
        if path.parent.name != "mil"
    )
    assert "monai_mil_ext/py.typed" in own
    pages = {name for name in own if name.endswith((".html", ".css", ".js"))}
    there = [path for end in ("html", "css", "js") for path in (ROOT / "monai_mil_ext").rglob(f"*.{end}")]
    assert pages == {str(path.relative_to(ROOT)) for path in there}
    wanted = (ROOT / "monai_mil_ext" / "apps" / "label" / "requirements.txt").read_text().splitlines()
    label = [f'Requires-Dist: {line}; extra == "label"' for line in wanted if not line.startswith("#")]
    assert [line for line in told.splitlines() if line.endswith('extra == "label"')] == label
    assert 'Requires-Dist: pydicom<3; extra == "label"' in label
    app = "monai_mil_ext-0.2.0.data/data/monailabel/sample-apps/mil"
    others = {name for name in names if name not in own and ".dist-info/" not in name}
    share = "monai_mil_ext-0.2.0.data/data/share/monai_mil_ext"
    assert others == {f"{app}/README.md", f"{app}/main.py", *(f"{share}/{name}" for name in tracked("bundles/*/*"))}


@pytest.mark.slow(buys="the wheel works in an empty environment, with its extras")
@pytest.mark.network
def test_it_works_where_nothing_else_is_and_with_its_extras(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare", cwd=tmp_path)
    python, (site,) = tmp_path / "bare" / "bin" / "python", (tmp_path / "bare" / "lib").glob("*/site-packages")
    any_pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    pip = (*any_pip, "install", "--no-compile", "-q")
    install = (*pip, "-c", ROOT / "constraints.txt")
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group()
    link_what_it_needs(wheel, site)
    run(*install, wheel, cwd=tmp_path)
    told = run(python, "-m", "monai_mil_ext", "doctor", cwd=tmp_path)
    assert told[-1] == "all well"
    run(python, "-m", "monai_mil_ext", "bundle", "copy", "bag_classifier", tmp_path, cwd=tmp_path)
    run(python, "-m", "scripts.prepare", "digits", cwd=tmp_path / "bag_classifier")
    predict = (python, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml")
    run(*predict, cwd=tmp_path / "bag_classifier")
    assert (tmp_path / "bag_classifier/eval/predictions.csv").read_text().count("\n") > 200
    for extra, package in (("wsi", "openslide-python"), ("figures", "matplotlib"), ("dicom", "highdicom")):
        assert any(line.startswith(f"  [{extra}] {package} not installed") for line in told)
    listed = run(*any_pip, "list", "--format=freeze", cwd=tmp_path)
    assert {line.split("==")[0] for line in listed if line.startswith("itk")} == {"itk-core", "itk-io"}
    code = "from monai_mil_ext.data import SlideFile; open('s.svs', 'w'); SlideFile('s.svs')"
    missing = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert missing.stderr.splitlines()[-1] == "ImportError: Reading slides needs more: pip install monai-mil-ext[wsi]."

    check_label_server(wheel, pip, python, tmp_path)

    link_what_it_needs(wheel, site, "study")
    run(*install, f"{wheel}[study]", cwd=tmp_path)
    run_study(python, tmp_path)

    link_what_it_needs(wheel, site, "all")
    run(*install, f"{wheel}[all]", cwd=tmp_path)
    failed, lines = told_by(python, tmp_path)
    fits = subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode == 0
    assert [name for line in lines for name in re.findall(r"([\w-]+) not installed", line)] == []
    assert set(faults := faults_of(lines)) == (
        set() if fits else {"timm", "transformers"}
    )  # both import torchvision where it is there
    assert set(faults.values()) <= {"RuntimeError: operator torchvision::nms does not exist"}
    assert failed == len(faults)
    run(*any_pip, "uninstall", "-q", "-y", "torchvision", cwd=tmp_path)
    failed, lines = told_by(python, tmp_path)
    assert (failed, faults_of(lines)) == (1, {"timm": "ModuleNotFoundError: No module named 'torchvision'"})
    printed = ("-c", "import torch; print('torch==' + torch.__version__.split('+')[0])")
    assert run(python, *printed, cwd=tmp_path)[-1] == torch
