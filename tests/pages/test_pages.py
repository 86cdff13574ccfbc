"""The commands of every page are run, block by block, as a reader would."""

import contextlib
import doctest
import glob
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .fork_server import PROGRAM
from .given import write_encoder
from .shell import ROOT, Shell, blocks, copy_bundles
from .table import PAGES, Page

WITH_BLOCKS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/*.md"))]
WITH_BLOCKS += sorted(ROOT.glob("scripts/experiments/*/*.md"))
WITH_BLOCKS = {str(page.relative_to(ROOT)): page for page in WITH_BLOCKS if "```bash" in page.read_text()}
PROGRAMS = {
    "torchrun": 'exec python -m torch.distributed.run "$@"',
    "scontrol": "echo localhost",
    "srun": """for machine in $(seq 0 $((SLURM_NNODES - 1))); do
  SLURM_PROCID=$machine SLURM_NODEID=$machine SLURM_LOCALID=0 SLURM_NTASKS=$SLURM_NNODES "$@" & started="${started-} $!"
done
for one in $started; do wait "$one" || exit 1; done""",
}


@pytest.fixture(scope="module")
def programs():
    """A folder for the path, whose ``python`` is a fork of one that has imported everything."""
    with tempfile.TemporaryDirectory() as folder:  # whose name is short: that of a socket has to be
        address = f"{folder}/server"
        for name, text in PROGRAMS.items():
            (Path(folder) / name).write_text(f"#!/bin/bash\n{text}\n")
        for name in ("python", "python3"):
            (Path(folder) / name).write_text(PROGRAM.format(python=sys.executable, address=address))
        for name in (*PROGRAMS, "python", "python3"):
            (Path(folder) / name).chmod(0o755)
        words = [sys.executable, "-m", "tests.pages.fork_server", address]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, cwd=ROOT, env=environment, **pipes) as server:
            assert server.stdout.readline() == "ready\n"
            yield folder
            server.stdin.close()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "dino")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_python(page: Path, number: int, folder: Path) -> None:
    """Run the first Python blocks of a page in a folder; the doctests check their output."""
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
        for block in blocks(page, "python")[:number]:
            for example in doctest.DocTestParser().get_examples(block):
                exec(compile(example.source, page.name, "single"), names)  # noqa: S102


def typed(how: Page, block: str) -> str:
    """What is typed for a block: some of its lines are left out, some words are others."""
    lines = [line for line in block.splitlines() if not line.startswith(tuple(how.left))]
    text = "\n".join(lines) + "\n" if lines else ""
    for old, new in how.instead.items():
        text = text.replace(old, new)
    before = [words for part, words in how.before.items() if part in block]
    return "\n".join([*before, text]) if text else ""


def run_page(page: Path, how: Page, programs: str, encoder: Path, folder: Path) -> None:
    """Run all blocks of a page in a copy of the bundles."""
    repo, study = copy_bundles(folder / "repo"), folder / "repo" / "study"
    study.mkdir()
    if how.given:
        how.given(repo)
    run_python(page, how.python, repo)
    own = {"REPO": str(repo), "STUDY": str(study), "ENCODER": str(encoder), "PORT": str(free_port())}
    more = json.dumps({text: [_filled(word, own) for word in words] for text, words in how.more.items()})
    paths = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "VENV": "venv",
        "MORE_WORDS": more,
        "MORE_USED": str(folder / "used"),
    }
    # processes of torchrun without an address of their own would all meet at one port
    settings = {"OMP_NUM_THREADS": "1", "PET_MASTER_PORT": str(free_port()), "PET_LOCAL_ADDR": "localhost"}
    shell = Shell(repo / how.start, {**os.environ, **own, **paths, **settings}, folder / "log")
    try:
        for block in blocks(page, "bash"):
            if text := typed(how, block):
                here = shell.run(text)
                files = [name for part, names in how.makes.items() if part in block for name in names]
                missing = [name for name in files if not glob.glob(str(here / _filled(name, own)))]
                assert missing == [], f"not made by\n{block}"
    finally:
        shell.close()
    used = (folder / "used").read_text().splitlines() if how.more else []
    assert set(how.more) - set(used) == set()


def _filled(word: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        word = word.replace(f"${name}", value)
    return word


def test_every_page_with_commands_is_in_the_table():
    assert set(PAGES) == set(WITH_BLOCKS)


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_what_the_table_says_of_a_page_is_on_the_page(name):
    text, how = WITH_BLOCKS[name].read_text(), PAGES[name]
    shown = blocks(WITH_BLOCKS[name], "bash")
    assert len(shown) == len(re.findall(r"```\s*(?:bash|sh|shell|console|zsh)", text))
    for part in (*how.before, *how.instead, *how.makes):
        assert any(part in block for block in shown), part
    lines = [line for block in shown for line in block.splitlines()]
    for start, (_, elsewhere) in how.left.items():
        assert any(line.startswith(start) for line in lines), start
        assert (ROOT / elsewhere).exists()
    assert how.left or all(typed(how, block) for block in shown)
    assert how.python <= len(blocks(WITH_BLOCKS[name], "python"))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_every_block_runs(name, programs, encoder, tmp_path):
    run_page(WITH_BLOCKS[name], PAGES[name], programs, encoder, tmp_path)
