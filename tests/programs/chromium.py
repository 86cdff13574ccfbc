"""Headless Chromium that a test drives by the protocol of its developer tools, through a pipe."""

import base64
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--mute-audio"]
FLAGS += ["--disable-component-update", "--remote-debugging-pipe", "--window-size=1500,850", "about:blank"]
DOMAINS = ("Page", "Runtime", "Log", "Network")


class Chromium:
    """Browser with one page.

    ``problems`` has the errors of its console: messages, exceptions and resources that can't be loaded. ``requests``
    has the addresses that it asked for.

    Args:
        folder: folder of the profile.
        flags: further options of the command line.
    """

    def __init__(self, folder, *flags):
        self.problems, self.requests = [], []
        self._numbers, self._answers, self._rest, self._is_loaded = itertools.count(1), {}, b"", False
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4, so a shell moves the ends of the pipes there
        move = f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", move, "chromium", f"--user-data-dir={folder}", *FLAGS, *flags]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        target = {"targetId": pages[0]["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **target)["sessionId"]
        for domain in DOMAINS:
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **params):
        """Return the answer to a command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while number not in self._answers:
            self._receive(end)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, url):
        """Go to an address, and wait until its page is loaded."""
        self._is_loaded, end = False, time.monotonic() + 60
        self.call("Page.navigate", url=url)
        while not self._is_loaded:
            self._receive(end)

    def evaluate(self, script):
        """Return the value of an expression of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script, seconds=30):
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, (script, self.evaluate("document.body.innerText")[:3000], self.problems)
            time.sleep(0.1)
        return value

    def click(self, x, y, times=1):
        """Click at a place."""
        for number in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=number)

    def press_key(self, key):
        """Press a key that types one character."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def processor_seconds(self):
        """Return the seconds of the processor that all processes of the browser took so far."""
        session, self._session = self._session, None
        processes = self.call("SystemInfo.getProcessInfo")["processInfo"]
        self._session = session
        assert {"browser", "renderer"} <= {process["type"] for process in processes}
        return sum(process["cpuTime"] for process in processes)

    def screenshot(self, file):
        """Write the page as PNG."""
        Path(file).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _receive(self, end):
        assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "the browser must answer"
        new = os.read(self._in, 2**20)
        assert new, "the browser must not end"
        *messages, self._rest = (self._rest + new).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, method, params):
        if method == "Page.loadEventFired":
            self._is_loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            said = [str(one.get("value", one.get("description", ""))) for one in params["args"]]
            self.problems.append(" ".join(said))
