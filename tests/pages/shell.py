"""A page's blocks, run in order by one bash in a copy of the bundles."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from pathlib import Path

__all__ = ["ROOT", "Shell", "blocks", "copy_bundles"]

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds of a block: processes that wait for one another for ever would be no failure
MADE = {"data", "data_digits", "eval", "runs", "__pycache__"}
SHIPPED = {"model.pt", "split.json", "statistics.json"}  # models of bag_classifier, the one that has any in git


def blocks(page: Path, language: str) -> list[str]:
    """Contents of the page's fenced blocks of one language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def copy_bundles(folder: Path) -> Path:
    """What the repository has and commands need, without what was made by running them."""

    def ignore(place: str, names: list[str]) -> set[str]:
        path = Path(place)
        kept = SHIPPED if path.parent.name == "bag_classifier" else set()
        return set(names) - kept if path.name == "models" else set(names) & MADE

    for name in ("bundles", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("monai_mil_ext", "constraints.txt", "setup.cfg", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    return folder


class Shell:
    """One bash, which stops at the first command that fails.

    Args:
        folder: where it starts.
        environment: its variables.
    """

    def __init__(self, folder: Path, environment: dict[str, str], log: Path) -> None:
        self.log, (said, saying) = log, os.pipe()
        with log.open("w") as output:
            self._bash = subprocess.Popen(
                ["/bin/bash", "--noprofile", "--norc", "-euE", "-o", "pipefail"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[saying],
                text=True,
                start_new_session=True,
            )
        os.close(saying)
        self._said, self._saying = os.fdopen(said), saying
        self._write("trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n")

    def run(self, block: str) -> Path:
        """Run a block; gives the folder that it ends in.

        Raises:
            AssertionError: when a command of it failed, with the end of what was printed.
        """
        before = self.log.stat().st_size
        script = self.log.with_suffix(".sh")
        script.write_text(block)
        # what it leaves running must not hold the pipe open: its end is how the end of bash is seen
        self._write(f"source {script} </dev/null {self._saying}>&-\npwd >&{self._saying}\n")
        if not select.select([self._said], [], [], LIMIT)[0]:
            os.killpg(self._bash.pid, signal.SIGKILL)
        folder = self._said.readline().strip()
        printed = self.log.read_bytes()[before:].decode(errors="replace")
        assert folder, f"{block}\n--- ended with {self._bash.wait()} after\n{printed[-6000:]}"
        return Path(folder)

    def close(self) -> None:
        """End it."""
        self._bash.stdin.close()
        self._bash.wait()
        self._said.close()

    def _write(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text)
        self._bash.stdin.flush()
