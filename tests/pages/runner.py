"""Runner of the bash blocks of a page, in order, in one shell, in a copy of the bundles."""

import contextlib
import doctest
import io
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from .table import Page

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds of a page; otherwise processes that wait for each other would never fail
CREATED = shutil.ignore_patterns("data", "data_digits", "eval", "runs", "models", "__pycache__")
SHIPPED = [f"bundles/{name}/models" for name in ("bag_classifier", "scan_mil", "wsi_mil")]


def blocks(page: Path, language: str) -> list[str]:
    """Return the page's fenced blocks of one language, without their indentation."""
    matches = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in matches]


def copy_bundles(folder: Path) -> None:
    """Copy the files of the repository that commands need, without those that commands create."""
    for name in ("bundles", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=CREATED)
    for name in ("docs", "study", *SHIPPED):
        (folder / name).mkdir()
    for path in (path for name in SHIPPED for path in (ROOT / name).glob("*.*") if path.suffix in {".pt", ".json"}):
        shutil.copy(path, folder / path.relative_to(ROOT))
    for name in ("monai_mil_ext", "constraints.txt", "setup.cfg", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)


def commands(block: str, how: Page) -> str:
    """Return the commands of a block as the table has them run, and checks of the files that they create."""
    lines = "\n".join(line for line in block.splitlines() if not line.startswith(tuple(how.skip)))
    if not lines:
        return ""
    for old, new in how.replace.items():
        lines = lines.replace(old, new)
    before = [text for part, text in how.before.items() if part in block]
    checks = [f"ls -d {' '.join(files)} >&2" for part, files in how.creates.items() if part in block]
    return "\n".join([*before, lines, *checks, ""])


def run_page(page: Path, how: Page, programs: str, encoder: Path, folder: Path) -> None:
    """Run all blocks of a page, and raise an ``AssertionError`` with the end of the output if a command fails."""
    repo = folder / "repo"
    copy_bundles(repo)
    if how.setup:
        how.setup(repo)
    examples = doctest.DocTestParser().get_examples("\n".join(blocks(page, "python")[: how.python]))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(repo):  # the doctests check the output
        exec("".join(example.source for example in examples), {})  # noqa: S102
    script = ["trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"]
    for i, block in enumerate(blocks(page, "bash")):
        (folder / f"block_{i}.sh").write_text(commands(block, how))
        script.append(f"source {folder}/block_{i}.sh")
    paths = {"REPO": str(repo), "STUDY": f"{repo}/study", "ENCODER": str(encoder), "PORT": free_port()}
    append = re.sub(r"\$([A-Z]+)", lambda name: paths[name[1]], json.dumps(how.append))
    paths |= {"PATH": f"{programs}:{os.environ['PATH']}", "VENV": "venv", "OMP_NUM_THREADS": "1"}
    paths |= {"APPENDED": append, "APPENDED_LOG": str(folder / "appended")}
    # without addresses of their own, all processes of torchrun would meet at one port
    paths |= {"PET_MASTER_PORT": free_port(), "PET_LOCAL_ADDR": "localhost"}
    (folder / "appended").touch()
    bash = ["timeout", str(LIMIT), "bash", "-euE", "-o", "pipefail", "-c", "\n".join(script)]
    with (folder / "log").open("w") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        code = subprocess.call(bash, cwd=repo / how.start, env={**os.environ, **paths}, **streams)
    assert code == 0, (folder / "log").read_text(errors="replace")[-6000:]
    assert set(how.append) - set((folder / "appended").read_text().splitlines()) == set()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
