"""A server that runs ``python -m MODULE`` in a second instead of ten, by forking a process that has imported MONAI.

``CLIENT`` is a program to be called ``python`` in the search path: it sends its arguments, folder, environment and
standard files to the server, whose fork runs the module or file as ``__main__``. The environment variable ``APPENDED``,
JSON of ``{text: [argument, ...]}``, shortens commands: arguments are appended to each command that contains the text,
and the last of two equal options wins. The texts that matched are written to the file ``APPENDED_LOG``.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys

# imports almost nothing, and starts the real interpreter if there is neither a module nor a file to run
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
words = [word for word in sys.argv[1:] if word not in ("-u", "-B")]
if not words or words[0].startswith("-") and words[0] != "-m":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
request = json.dumps([words, os.getcwd(), dict(os.environ), sys.argv[0]]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    child = int.from_bytes(server.recv(4), "big")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    sys.exit(int.from_bytes(server.recv(1) or b"\\1", "big"))
"""
IMPORTS = ["highdicom", "itk", "monai.bundle", "monai_mil_ext", "onnxscript", "transformers"]
state = {}  # of a fork: the socket of its client, and the exit status


def _exit_at_once() -> None:
    """Send the exit status, and skip the cleanup of all that MONAI imported, which takes three seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    state["client"].sendall(bytes([state["code"] & 255]))
    os._exit(0)


def serve(address: str) -> None:
    """Print ``ready``, run commands until the standard input ends, and then end those that still run."""
    for module in IMPORTS:
        importlib.import_module(module)
    # loaded at their first use, in seconds
    _ = sys.modules["itk"].ImageSeriesReader, sys.modules["transformers"].Dinov2Model
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        gc.freeze()  # otherwise the first collection in each fork copies all memory
        print("ready", flush=True)  # noqa: T201
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _execute(client)
            client.close()
    os.killpg(0, signal.SIGTERM)


def _execute(client: socket.socket) -> None:
    """Run the client's command with its files, folder and environment, send it the exit status, and exit."""
    size, files, _, _ = socket.recv_fds(client, 4, 3)
    request = client.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    words, folder, environment, sys.executable = json.loads(request)  # what the command starts is forked, too
    client.sendall(os.getpid().to_bytes(4, "big"))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    state.update(client=client, code=1)  # the code of any exception
    try:
        _run_module(words)
        state["code"] = 0
    except SystemExit as end:
        state["code"] = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.exit()


def _run_module(words: list[str]) -> None:
    command = " ".join(words)
    for text, more in json.loads(os.environ.get("APPENDED", "{}")).items():
        if text in command and "torch.distributed.run" not in words:  # its processes are forked here, too
            words = words + more
            with open(os.environ["APPENDED_LOG"], "a") as log:
                log.write(f"{text}\n")
    if words[0] == "-m":
        sys.argv, sys.path[0] = ["-m", *words[2:]], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(words), os.path.dirname(os.path.realpath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    atexit.register(_exit_at_once)  # before all others, to be called after them
    serve(sys.argv[1])
