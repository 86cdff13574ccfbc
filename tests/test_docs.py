"""The pages: their tables are the measured ones, their links lead somewhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("bundles/*/docs/*.md")),
    *sorted(ROOT.glob("scripts/experiments/*/*.md")),
]
WIDTH = 88  # columns of code in a page: wider blocks are cut off on the site


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_of_a_page_is_narrow_and_can_be_pasted(page):
    blocks = re.findall(r"^ *```(?:bash|json|python|yaml)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert [line for line in lines if len(line) > WIDTH and "Error: " not in line] == []  # a message is not broken
    assert [line for line in lines if "getfixture" in line or "monkeypatch" in line] == []


def results(root, *words):
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "results"), *words], capture_output=True, text=True, check=False
    )


def test_every_table_is_the_measured_one():
    done = results(ROOT, "--check")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_changed_number_is_found(tmp_path):
    for name in ("scripts", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    path = tmp_path / "docs" / "results" / "ct.json"
    result = json.loads(path.read_text())
    result["rows"][0]["values"]["bag_auroc"] = 0.123
    path.write_text(json.dumps(result))
    done = results(tmp_path, "--check")
    assert done.returncode == 1
    assert "docs/ct.md: the table differs from docs/results" in done.stdout
    results(tmp_path)
    assert "0.123" in (tmp_path / "docs" / "ct.md").read_text()
    assert results(tmp_path, "--check").returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_a_result_says_how_it_was_made(path):
    result = json.loads(path.read_text())
    if result.get("kind") == "list":
        return  # of texts, without a number that a command measured
    told = result.keys()
    assert told >= {"command", "commit", "seeds", "versions", "rows", "note"}
    assert told & {"wall_seconds", "cpu_seconds"}  # the latter where parts run side by side
