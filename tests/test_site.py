"""The documentation as a site: every page and link of it, and the reference made from docstrings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import monai_mil_ext

ROOT = Path(__file__).parents[1]


@pytest.mark.slow(buys="the site builds without a warning and shows every public name")
def test_it_builds_without_a_warning_and_has_every_page_and_public_name(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", "html", ".", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (link,) = re.findall(r'href="([^"]+)"', (tmp_path / "index.html").read_text())
    assert (tmp_path / link).exists()
    for pattern in ("docs/**/*.md", "bundles/*/docs/README.md", "scripts/experiments/*/README.md"):
        for page in ROOT.glob(pattern):
            assert (tmp_path / page.relative_to(ROOT)).with_suffix(".html").exists(), page
    text = re.sub(r"<[^>]+>", "", (tmp_path / "docs/reference/api.html").read_text())
    parts = [getattr(monai_mil_ext, name) for name in monai_mil_ext.__all__ if name != "networks"]
    parts.append(monai_mil_ext.networks.nets)
    names = [name for part in parts for name in part.__all__ if callable(getattr(part, name))]
    assert len(names) > 100
    assert [name for name in names if name not in text] == []
