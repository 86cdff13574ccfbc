"""Layer between the network and MONAI Label: rules for requests, threads for them, and plain answers to errors."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .client_errors import explain, without_paths
from .request_rules import Refusal, RequestRules

__all__ = ["RequestGuard"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

RETRY_AFTER = 30  # seconds
TASKS = ("train", "scoring", "batch")  # their answers hold lines of logs
READERS = ("labeller/answer", "labeller/send")
logger = logging.getLogger(__name__)


class RequestGuard:
    """ASGI application around that of MONAI Label.

    MONAI Label infers in the event loop, where nothing else can run meanwhile. Here a request runs in a thread, and one
    with a model in another group of threads than all others. When ``waiting`` of the former are under way, the next
    gets the status 503.

    Args:
        app: application of MONAI Label.
        rules: rules for requests.
        waiting: most requests with a model at a time.
        files: makes the context of a request, in its thread.
    """

    def __init__(
        self,
        app: App,
        rules: RequestRules,
        waiting: int = 16,
        files: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.app = app
        self.rules = rules
        self.waiting = waiting
        self.files = files
        self._count = 0
        self._slow = ThreadPoolExecutor(2, "model")
        self._quick = ThreadPoolExecutor(8, "request")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self.rules.refusal(scope)
        is_slow = refusal is None and _runs_a_model(scope)
        if is_slow and not self._enter():
            refusal = Refusal(503, "the server has as many requests as it may have waiting; try again later.")
        if refusal is not None:
            await _send_json(send, *refusal)
            return
        try:
            await self._answer(scope, receive, send, self._slow if is_slow else self._quick)
        finally:
            self._count -= is_slow

    def _enter(self) -> bool:
        if self._count >= self.waiting:  # only the event loop counts
            return False
        self._count += 1
        return True

    async def _answer(self, scope: Message, receive: Receive, send: Send, threads: ThreadPoolExecutor) -> None:
        body = _Body(receive, self.rules.limit(_headers(scope)))
        answer = _Answer(send, body, has_log=any(part in TASKS for part in scope["path"].split("/")[:2]))
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(threads, self._run, scope, _from_thread(body, loop), _from_thread(answer, loop))
        except Exception as error:
            status, reason = explain(error)
            if body.is_too_large:
                status, reason = 413, f"the request must have at most {body.limit} bytes."
            if status >= 500:
                logger.exception("a request failed")
            await answer.replace(status, reason)
        else:
            if body.is_too_large:
                await answer.replace(413, f"the request must have at most {body.limit} bytes.")

    def _run(self, scope: Message, receive: Receive, send: Send) -> None:
        with self.files():
            asyncio.run(self.app(scope, receive, send))  # type: ignore[arg-type]


class _Body:
    """Body of a request, which ends where it grows too large."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit, self.size = receive, limit, 0

    @property
    def is_too_large(self) -> bool:
        return self.size > self.limit

    async def __call__(self) -> Message:
        message = await self.receive()
        self.size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_too_large else message


class _Answer:
    """Answer that is held back if it is an error or holds lines of logs, until it is complete and has no path."""

    def __init__(self, send: Send, body: _Body, has_log: bool) -> None:
        self.send, self.body, self.has_log = send, body, has_log
        self.held: Message | None = None
        self.content = b""
        self.is_sent = False

    async def __call__(self, message: Message) -> None:
        if self.body.is_too_large:
            return  # another answer takes the place of this one
        if message["type"] == "http.response.start" and (self.has_log or message["status"] >= 400):
            self.held = message
        elif self.held is None:
            self.is_sent = True
            await self.send(message)
        else:
            self.content += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self.held)

    async def _finish(self, start: Message) -> None:
        try:
            content = without_paths(json.loads(self.content))
        except ValueError:
            if start["status"] == 500:
                return  # of an error, which comes next
            content = {"detail": self.content.decode("utf-8", "replace")}
        status = 400 if start["status"] == 500 else start["status"]  # MONAI Label's own 500 are mistakes of clients
        kept = [(name, value) for name, value in start["headers"] if name not in (b"content-length", b"content-type")]
        self.is_sent = True
        await _send_json(self.send, status, content, kept)

    async def replace(self, status: int, reason: str) -> None:
        if not self.is_sent:
            self.is_sent = True
            await _send_json(self.send, status, reason)


async def _send_json(send: Send, status: int, content: Any, headers: Any = ()) -> None:
    content = {"detail": content} if isinstance(content, str) else content
    body = json.dumps(content).encode()
    lines = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    if status == 503:
        lines.append((b"retry-after", str(RETRY_AFTER).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _from_thread(call: Callable[..., Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Callable[..., Awaitable[Any]]:
    """Return a function that an event loop in a thread can await, and that runs in ``loop``."""

    async def there(*args: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(*args), loop))  # type: ignore[arg-type]

    return there


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _runs_a_model(scope: Mapping[str, Any]) -> bool:
    path = scope["path"].strip("/")
    kind = path.split("/")[0]
    if scope["method"] != "POST":
        return False
    return kind == "infer" or path in READERS or (kind in TASKS and b"run_sync" in scope.get("query_string", b""))
