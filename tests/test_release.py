"""Tests of scripts/release."""

import re
import subprocess
import sys
from email import message_from_string
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
URL = "https://example.org/owner/mil"
METADATA = "import sys; from setuptools.build_meta import prepare_metadata_for_build_wheel as p; print(p(sys.argv[1]))"


@pytest.fixture(scope="module")
def release():
    loader = SourceFileLoader("release", str(ROOT / "scripts" / "release"))
    module = module_from_spec(spec_from_loader("release", loader))
    loader.exec_module(module)
    return module


def test_links_are_absolute_and_lead_to_files(release, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").touch()
    text = "[a](docs/a.md#part) ![p](docs/a.md) [d](docs) [w](https://monai.io) [here](#limits)"
    assert release.absolute_links(text, URL + "/", "v1", tmp_path) == (
        f"[a]({URL}/blob/v1/docs/a.md#part) ![p]({URL}/raw/v1/docs/a.md) [d]({URL}/tree/v1/docs) "
        "[w](https://monai.io) [here](#limits)"
    )
    with pytest.raises(FileNotFoundError, match=r"must lead to files, got 'docs/b\.md'"):
        release.absolute_links("[b](docs/b.md)", URL, "v1", tmp_path)


def test_the_metadata_of_a_release_has_no_relative_link(release, tmp_path):
    (tmp_path / "tree").mkdir()
    before = (ROOT / "README.md").read_bytes()
    release.copy_tree(tmp_path / "tree", URL, "main")
    command = [sys.executable, "-c", METADATA, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "tree", capture_output=True, text=True, check=True)
    text = message_from_string((tmp_path / done.stdout.split()[-1] / "METADATA").read_text()).get_payload()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) > 20
    assert all(re.match(r"https://|#", target) for target in targets)
    assert f"({URL}/raw/main/docs/images/lesion-scan.png)" in text
    assert (ROOT / "README.md").read_bytes() == before


@pytest.mark.parametrize("url", ["example.org/a/b", "https://example.org", "http://example.org/a/b"])
def test_other_addresses_are_refused(release, url, capsys):
    with pytest.raises(SystemExit):
        release.main(["--url", url])
    assert "`url` must be of the form" in capsys.readouterr().err
