"""``python -m monai_mil_ext``: what it prints of an installation, and that its test can fail."""

import numpy as np
import pytest
import torch

from monai_mil_ext import __main__ as command
from monai_mil_ext.networks import nets


def test_it_tells_versions_optional_parts_and_that_all_is_well(capsys):
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("monai_mil_ext 0.2.0.dev0, research use only")
    assert f"torch {torch.__version__}".split("+")[0] in lines[1]
    assert any(line.startswith("  [wsi] openslide-python ") for line in lines)
    assert lines[-1] == "all well"


def test_a_network_that_looks_at_padding_fails_it(capsys, monkeypatch):
    monkeypatch.setattr(command, "EXTRAS", {})
    whole = nets.MeanMIL.forward
    monkeypatch.setattr(nets.MeanMIL, "forward", lambda self, x, mask=None: whole(self, x))
    assert command.main() == torch.cuda.device_count() + 1
    out = capsys.readouterr().out
    assert "networks with padding on cpu: FAILED, AssertionError: MeanMIL" in out
    assert "test" in out.splitlines()[-1]


def test_a_part_that_is_not_there_is_said(capsys, monkeypatch):
    monkeypatch.setattr(command, "EXTRAS", {"moon": ("no-such-package",)})
    command.main()
    assert "  [moon] no-such-package not installed" in capsys.readouterr().out


def test_a_part_that_does_not_import_fails_it_and_says_why(capsys, monkeypatch, tmp_path):
    (tmp_path / "broken_part.py").write_text("raise RuntimeError('no such operator\\nand more')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(command, "EXTRAS", {"moon": ("numpy", "pytest")})
    monkeypatch.setattr(command, "MODULES", {"pytest": "broken_part"})
    assert command.main() == 1
    lines = capsys.readouterr().out.splitlines()
    expected = f"  [moon] numpy {np.__version__}, pytest {pytest.__version__}"
    assert f"{expected} does not import (RuntimeError: no such operator)" in lines
    assert lines[-1] == f"1 of {3 * (1 + torch.cuda.device_count()) + 2} tests failed"
