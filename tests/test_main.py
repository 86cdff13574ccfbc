"""``python -m monai_mil_ext``: what it prints of an installation, and that its test can fail."""

import torch

from monai_mil_ext import __main__ as command
from monai_mil_ext.networks import nets


def test_it_tells_versions_optional_parts_and_that_all_is_well(capsys):
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("monai_mil_ext 0.1.0, research use only")
    assert f"torch {torch.__version__}".split("+")[0] in lines[1]
    assert any(line.startswith("  [wsi] openslide-python ") for line in lines)
    assert lines[-1] == "all well"


def test_a_network_that_looks_at_padding_fails_it(capsys, monkeypatch):
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
