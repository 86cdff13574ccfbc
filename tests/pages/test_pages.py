"""The commands of every page are run, block by block, as a reader would."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .page_setup import SLURM, write_encoder, write_programs
from .python_server import CLIENT
from .runner import ROOT, blocks, run_page
from .table import PAGES

FILES = ["README.md", "docs/**/*.md", "bundles/*/docs/*.md", "scripts/experiments/*/*.md"]
FILES = [path for pattern in FILES for path in sorted(ROOT.glob(pattern)) if "```bash" in path.read_text()]
FILES = {str(path.relative_to(ROOT)): path for path in FILES}


@pytest.fixture(scope="module")
def programs():
    """Folder for the search path, whose ``python`` is a fork of a process that has imported MONAI."""
    with tempfile.TemporaryDirectory() as folder:  # a short path, as that of a socket must be
        python = CLIENT.format(python=sys.executable, address=f"{folder}/server")
        write_programs(Path(folder), {"python": python, "python3": python, **SLURM})
        server = [sys.executable, "-m", "tests.pages.python_server", f"{folder}/server"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        with subprocess.Popen(server, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes) as process:
            assert process.stdout.readline() == "ready\n"
            yield folder
            process.stdin.close()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "dino")


def test_every_page_with_commands_is_in_the_table():
    assert set(PAGES) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_table_agrees_with_the_page(name):
    text, how, shown = FILES[name].read_text(), PAGES[name], blocks(FILES[name], "bash")
    assert len(shown) == len(re.findall(r"```\s*(?:bash|sh|shell|console|zsh)", text))
    for part in (*how.before, *how.replace, *how.creates):
        assert any(part in block for block in shown), part
    for start, (_, elsewhere) in how.skip.items():
        assert any(line.startswith(start) for block in shown for line in block.splitlines()), start
        assert (ROOT / elsewhere).exists()
    assert how.python <= len(blocks(FILES[name], "python"))


@pytest.mark.slow(buys="every command of the page works as shown")
@pytest.mark.parametrize("name", FILES)
def test_every_block_runs(name, programs, encoder, tmp_path):
    run_page(FILES[name], PAGES[name], programs, encoder, tmp_path)
