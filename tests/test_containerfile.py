"""Rules of the container file, which was never built, for lack of a registry of images."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "Containerfile").read_text().splitlines() if line and not line.startswith("#")]
STEPS = [line.split(" ", 1) for line in LINES]
RUNS = [text for name, text in STEPS if name == "RUN"]


def setup(section, option):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config[section][option]


def test_each_line_is_an_instruction_and_the_base_has_a_version():
    assert {name for name, _ in STEPS} <= {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}
    arguments = dict(text.split("=", 1) for name, text in STEPS if name == "ARG")
    assert re.fullmatch(r"\S+/python:3\.11\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])
    assert [text for name, text in STEPS if name == "FROM"] == ["${PYTHON_IMAGE} AS wheel", "${PYTHON_IMAGE}"]
    assert set(arguments["EXTRAS"].split(",")) <= set(re.findall(r"^([a-z]+) =", _extras(), re.MULTILINE))


def _extras():
    return (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1].split("\n[")[0]


def test_it_does_not_run_as_root_and_leaves_no_cache():
    names = [name for name, _ in STEPS]
    assert names.index("USER") < len(names) - 1 - names[::-1].index("RUN")
    assert [text for name, text in STEPS if name == "USER"] == ["mil"]
    assert any("PIP_NO_CACHE_DIR=1" in text for name, text in STEPS if name == "ENV")
    assert all("--no-cache-dir" in run or "-m pip install" in run for run in RUNS if "pip" in run)
    assert not any("curl" in run or "sudo" in run for run in RUNS)


def is_sent(path):
    """Return whether a path is sent to the build: the last rule that matches it, or a folder of it, decides."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().split():
        pattern = re.escape(rule.removeprefix("!").rstrip("/")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.match(rf"{pattern}(/|$)", path):
            sent = rule.startswith("!")
    return sent


def test_what_the_wheel_needs_is_sent_and_nothing_of_a_user():
    listed = setup("options.data_files", "share/monai_mil_ext/bundles/bag_classifier/models").split()
    listed += ["setup.cfg", "pyproject.toml", "README.md", "constraints.txt", "monai_mil_ext/apps/study/study.py"]
    listed += [*setup("metadata", "license_files").split(", "), "bundles/scan_mil/configs/train.yaml"]
    assert [name for name in listed if not (ROOT / name).is_file()] == []
    assert [name for name in listed if not is_sent(name)] == []
    own = ("data/cohort.csv", "eval/results.csv", "models/fold_0/model.pt", "models/federated/model.json")
    others = [".git/config", "runs/a", ".venv/bin/python", "docs/index.md", "monai_mil_ext/data/__pycache__/a.pyc"]
    assert [name for name in (*(f"bundles/wsi_mil/{name}" for name in own), *others) if is_sent(name)] == []


@pytest.mark.parametrize("run", RUNS)
def test_each_command_is_one_that_a_shell_reads(run):
    subprocess.run(["sh", "-n", "-c", run], check=True)
