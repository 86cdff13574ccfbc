"""Runs ``python -m MODULE`` in a second instead of ten: a process that has imported MONAI once is forked for each.

``import monai`` takes most of the time of a short command, and the pages have about a hundred of them. So the shell of
``tests.pages.shell`` finds a ``python`` in its path that hands its words, folder, environment and three files to the
server, which forks: what then runs is the module as ``__main__``, as the real ``python`` would have run it. The
server has imported nothing of the repository but the package.

``MORE_WORDS`` of the environment, ``{text: [word, ...]}``, makes a command shorter than the page has it: where the text
is in it, the words are put at its end, and the last of two options wins. ``MORE_USED`` is the file that says so.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["PROGRAM", "serve"]

# what stands in the path as `python`: it imports next to nothing, and leaves to the real one what has no module or file
PROGRAM = """#!{python} -IS
import array, json, os, signal, socket, sys
words = sys.argv[1:]
while words and words[0] in ("-u", "-B"):
    words = words[1:]
if not words or words[0].startswith("-") and words[0] != "-m":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
told = {{"words": words, "cwd": os.getcwd(), "environment": dict(os.environ), "program": sys.argv[0]}}
told = json.dumps(told).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    child = int.from_bytes(server.recv(4), "big")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    code = server.recv(4)
sys.exit(int.from_bytes(code, "big") if code else 1)
"""


status = [0]


@atexit.register
def _leave() -> None:
    """End at once, after all that was registered later: to free what MONAI made takes three seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status[0])


def serve(address: str) -> None:
    """Answer until the standard input ends, with the process that has the other end; says ``ready`` when it does."""
    import highdicom  # noqa: F401 - commands of the pages would import it
    import itk
    import onnxscript  # noqa: F401
    import torch
    from monai import bundle  # noqa: F401
    from transformers import Dinov2Model  # noqa: F401

    import monai_mil_ext  # noqa: F401

    _ = itk.ImageSeriesReader, itk.MetaDataObject  # three seconds, at the first use
    if torch.get_num_threads() > 1:
        raise RuntimeError("a process with threads can't be forked: OMP_NUM_THREADS must be 1.")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        gc.freeze()  # or the first collection of each fork copies it all
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _keep(connection)
            connection.close()


def _keep(connection: socket.socket) -> None:
    """Fork once more, and wait for the end of that process, or of the program that asked for it."""
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    told = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    child = os.fork()
    if child == 0:
        connection.close()
        _become(told, files)
    connection.sendall(child.to_bytes(4, "big"))
    ended = os.pidfd_open(child)
    if connection in select.select([connection, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)  # the program is gone
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
    os._exit(0)


def _become(told: dict[str, Any], files: Sequence[int]) -> None:
    """Be the command: its files, folder, environment and words, and nothing of the server's after it."""
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.executable = told["program"]  # so that what the command starts is forked, too
    try:
        _run(told["words"])
    except SystemExit as end:
        status[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except BaseException:
        status[0] = 1
        raise
    sys.exit()


def _run(words: list[str]) -> None:
    if words[:2] != ["-m", "torch.distributed.run"]:  # its processes come here, too
        said = " ".join(words)
        for text, more in json.loads(os.environ.get("MORE_WORDS", "{}")).items():
            if text in said:
                words = words + more
                with open(os.environ["MORE_USED"], "a") as used:
                    used.write(f"{text}\n")
    if words[0] == "-m":
        sys.argv, sys.path[0] = ["-m", *words[2:]], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(words), str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
