"""Tests of the provenance of results."""

import importlib.machinery
import json
import platform
import shutil
import subprocess
import sys
from datetime import datetime

import torch

import monai_mil_ext
from monai_mil_ext.apps.study import collect_provenance, describe_machine, package_versions, read_commit
from monai_mil_ext.apps.study.provenance import command_of_process

GIT = shutil.which("git")


def commit_of_a_new_repository(folder):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([GIT, *words], cwd=folder, check=True)
    done = subprocess.run([GIT, "log", "-1", "--format=%h"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_read_commit_is_none_outside_a_repository_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert read_commit(tmp_path) is None
    assert read_commit((tmp_path / "repository").mkdir() or tmp_path / "repository") is None
    commit = commit_of_a_new_repository(tmp_path / "repository")
    assert read_commit(tmp_path / "repository") == commit
    monkeypatch.setenv("PATH", "")
    assert read_commit(tmp_path / "repository") is None


def test_the_command_of_a_process_has_no_absolute_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/doe/study.py", "--table", "/home/doe/cohort.csv", "--title", "a b"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert command_of_process() == "python study.py --table <path> --title 'a b'"
    spec = importlib.machinery.ModuleSpec("monai.bundle.__main__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert command_of_process() == "python -m monai.bundle --table <path> --title 'a b'"


def test_collect_provenance_has_all_that_makes_a_result_again(tmp_path):
    provenance = collect_provenance("scripts/reproduce ct", (1, 2), seconds=12.6, repository=tmp_path, threads=3)
    assert json.loads(json.dumps(provenance)) == provenance
    assert (provenance["command"], provenance["seeds"]) == ("scripts/reproduce ct", [1, 2])
    assert (provenance["wall_seconds"], provenance["threads"]) == (13, 3)
    assert datetime.fromisoformat(provenance["date"]).utcoffset().total_seconds() == 0
    assert provenance["versions"]["monai-mil-ext"] == monai_mil_ext.__version__
    assert "wall_seconds" not in collect_provenance("", [])
    assert collect_provenance("", [])["threads"] == torch.get_num_threads()


def test_collect_provenance_names_no_host_and_no_folder(tmp_path):
    text = json.dumps(collect_provenance("c", [], repository=tmp_path))
    assert platform.node() not in text
    assert str(tmp_path) not in text


def test_package_versions_leaves_out_what_is_not_installed():
    assert list(package_versions(["torch", "no-such-package"])) == ["torch"]


def test_describe_machine_has_processor_and_cores():
    assert " cores" in describe_machine()
    assert "\n" not in describe_machine()
