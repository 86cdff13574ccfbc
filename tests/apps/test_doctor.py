"""Tests of the report of an installation, and that its self-test can fail."""

import configparser
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_mil_ext.apps import doctor
from monai_mil_ext.networks import nets

ROOT = Path(__file__).parents[2]


def test_report_installation_names_versions_and_extras(capsys):
    assert doctor.report_installation() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("monai_mil_ext 0.2.0, research use only")
    assert f"torch {torch.__version__}".split("+")[0] in lines[1]
    assert any(line.startswith("  [wsi] openslide-python ") for line in lines)
    assert lines[-1] == "all well"


def test_all_extras_for_users_are_reported():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = {name: re.sub(r"[<>=][^\s]*", "", text).split() for name, text in config["options.extras_require"].items()}
    users = re.fullmatch(r"monai-mil-ext\[(.*)\]", extras["all"][0]).group(1).split(",")
    assert set(doctor.EXTRAS) == {*users, "tracking"}
    assert all(set(names) <= set(extras[extra]) for extra, names in doctor.EXTRAS.items())


def test_report_installation_fails_for_a_network_that_reads_padding(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {})
    whole = nets.MeanMIL.forward
    monkeypatch.setattr(nets.MeanMIL, "forward", lambda self, x, mask=None: whole(self, x))
    assert doctor.report_installation() == torch.cuda.device_count() + 1
    out = capsys.readouterr().out
    assert "networks with padding on cpu: FAILED, AssertionError: MeanMIL" in out
    assert "test" in out.splitlines()[-1]


def test_report_installation_names_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"moon": ("no-such-package",)})
    doctor.report_installation()
    assert "  [moon] no-such-package not installed" in capsys.readouterr().out


def test_report_installation_says_why_a_package_does_not_import(capsys, monkeypatch, tmp_path):
    (tmp_path / "broken_part.py").write_text("raise RuntimeError('no such operator\\nand more')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "EXTRAS", {"moon": ("numpy", "pytest")})
    monkeypatch.setattr(doctor, "MODULES", {"pytest": "broken_part"})
    assert doctor.report_installation() == 1
    lines = capsys.readouterr().out.splitlines()
    expected = f"  [moon] numpy {np.__version__}, pytest {pytest.__version__}"
    assert f"{expected} does not import (RuntimeError: no such operator)" in lines
    assert lines[-1] == f"1 of {3 * (1 + torch.cuda.device_count()) + 2} tests failed"
