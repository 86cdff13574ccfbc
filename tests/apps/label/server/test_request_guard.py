"""Tests of the layer before MONAI Label, with another application in its place."""

import asyncio
import json
import time

import pytest

from monai_mil_ext.apps.label.server import RequestGuard, RequestRules

NAMES = {"models": ["m"], "trainers": ["m"], "scoring": ["m"], "strategies": ["m"]}


async def call(guard, path, method="GET", chunks=(b"",), headers=(), query=b""):
    """Send one request and return its status, headers and JSON."""
    bodies = [{"type": "http.request", "body": body, "more_body": True} for body in chunks]
    bodies[-1]["more_body"] = False
    sent, scope = [], {"type": "http", "path": path, "method": method, "headers": list(headers), "query_string": query}

    async def receive():
        return bodies.pop(0)

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)


def answering(status=200, content=b"{}", seconds=0.0, error=None, is_patient=False):
    """An application that answers, reads the whole body, and may take its time or fail."""

    async def app(scope, receive, send):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect" and is_patient:
                break
            if message["type"] == "http.disconnect":
                raise RuntimeError("the client is gone")
            if not message["more_body"]:
                break
        time.sleep(seconds * (scope["method"] == "POST"))  # as a model does, in the event loop
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-kept", b"1")]})
        await send({"type": "http.response.body", "body": content})
        if error:
            raise error

    return app


def guard(app, **options):
    return RequestGuard(app, RequestRules(lambda: NAMES), **options)


def test_request_guard_answers_others_while_a_model_runs():
    async def run():
        tasks = [asyncio.create_task(call(one, "/infer/m", "POST")) for _ in range(2)]
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        answer = await call(one, "/info/")
        seconds = time.monotonic() - begin
        return seconds, answer[0], [status for status, _, _ in await asyncio.gather(*tasks)]

    one = guard(answering(seconds=1.5))
    seconds, status, others = asyncio.run(run())
    assert seconds < 1
    assert (status, others) == (200, [200, 200])


def test_request_guard_bounds_the_requests_that_wait():
    async def run():
        return await asyncio.gather(*(call(one, "/infer/m", "POST") for _ in range(6)))

    one = guard(answering(seconds=0.1), waiting=4)
    answers = asyncio.run(run())
    assert sorted(status for status, _, _ in answers) == [200] * 4 + [503] * 2
    assert [int(headers[b"retry-after"]) for status, headers, _ in answers if status == 503] == [30, 30]
    assert [status for status, _, _ in asyncio.run(run())].count(200) == 4  # those before count no longer


@pytest.mark.parametrize(
    ("status", "content", "error", "expected"),
    [
        (500, b"Internal Server Error", ValueError("in /data/doe/x"), (500, "the server failed; its log says why.")),
        (500, b"Internal Server Error", OSError(28, "full"), (507, "the disk of the server is full; nothing was")),
        (500, b'{"detail": "Neither Image nor File"}', None, (400, "Neither Image nor File")),
        (404, b'{"detail": "Log File /data/doe/app.log NOT Found"}', None, (404, "Log File <path> NOT Found")),
        (403, b"Forbidden", None, (403, "Forbidden")),
    ],
)
def test_request_guard_gives_a_reason_and_no_path(status, content, error, expected):
    answer = asyncio.run(call(guard(answering(status, content, error=error)), "/datastore/"))
    assert answer[0] == expected[0]
    assert answer[2]["detail"].startswith(expected[1])


def test_request_guard_leaves_tracebacks_out_of_tasks_and_nothing_out_of_other_answers():
    content = json.dumps({"details": ["    run(x)", "at /data/doe/x"], "status": "ERROR"}).encode()
    status, headers, answer = asyncio.run(call(guard(answering(content=content)), "/train/"))
    assert (status, answer) == (200, {"details": ["at <path>"], "status": "ERROR"})
    assert headers[b"x-kept"] == b"1"
    assert asyncio.run(call(guard(answering(content=content)), "/datastore/"))[2] == json.loads(content)


@pytest.mark.parametrize("is_patient", [False, True])  # FastAPI answers in spite of the end of the body
def test_request_guard_stops_a_body_that_grows_too_large(is_patient):
    chunks = [b"x" * 2**19] * 4
    app = guard(answering(400, is_patient=is_patient))
    status, _, answer = asyncio.run(call(app, "/train/m", "POST", chunks))
    assert (status, answer["detail"]) == (413, "the request must have at most 1048576 bytes.")
    assert asyncio.run(call(guard(answering()), "/train/m", "POST", chunks[:2]))[0] == 200
