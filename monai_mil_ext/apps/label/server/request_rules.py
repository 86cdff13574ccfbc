"""Rules for the requests of clients: from where they may come, how large they are, and what they may name."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from .uploaded_archives import is_session_id

__all__ = ["Refusal", "RequestRules"]

LARGEST_JSON = 2**20  # bytes
LARGEST_UPLOAD = 8 * 2**30
SESSIONS = "session_id"
# what the last part of a path names, by the parts before it
NAMED = {
    "infer": "models",
    "infer/wsi": "models",
    "infer/wsi_v2": "models",
    "batch/infer": "models",
    "train": "trainers",
    "scoring": "scoring",
    "activelearning": "strategies",
}
WORDS = {"models": "model", "trainers": "model", "scoring": "method", "strategies": "strategy"}


class Refusal(NamedTuple):
    """Answer to a request that is not passed on."""

    status: int
    reason: str


class RequestRules:
    """Rules that hold for every route of the server.

    Args:
        names: function that returns the names of ``models``, ``trainers``, ``scoring`` and ``strategies``.
        origins: addresses of pages that may use the server, besides its own.
        has_archive: whether the images lie in a DICOMweb archive.
        largest_upload: bytes of an upload.
    """

    def __init__(
        self,
        names: Callable[[], Mapping[str, Collection[str]]],
        origins: Sequence[str] = (),
        has_archive: bool = False,
        largest_upload: int = LARGEST_UPLOAD,
    ) -> None:
        self.names = names
        self.origins = {origin.rstrip("/") for origin in origins}
        self.hosts = {"localhost", socket.gethostname(), *(urlsplit(origin).hostname for origin in self.origins)}
        self.has_archive = has_archive
        self.largest_upload = largest_upload

    def refusal(self, scope: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused, or None."""
        try:
            return self._refusal(scope)
        except ValueError:  # of an address such as http://[::1
            return Refusal(400, "the addresses and lengths of the headers must be readable.")

    def _refusal(self, scope: Mapping[str, Any]) -> Refusal | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parts = [part for part in scope["path"].split("/") if part]
        return (
            self._foreign(headers)
            or self._closed(scope["method"], parts)
            or self._unknown(scope["method"], parts)
            or _odd_session(scope, parts)
            or self._too_large(headers)
        )

    def limit(self, headers: Mapping[str, str]) -> int:
        """Return the most bytes that the body of a request may have."""
        return self.largest_upload if headers.get("content-type", "").startswith("multipart/") else LARGEST_JSON

    def _foreign(self, headers: Mapping[str, str]) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin", "").rstrip("/")
        name = urlsplit(f"//{host}").hostname or ""
        if host and name not in self.hosts and not _is_address(name):  # a page may point its own name to this machine
            return Refusal(403, "the host must be that of the server; MONAI_LABEL_CORS_ORIGINS can add its address.")
        if origin and origin not in self.origins and urlsplit(origin).netloc != host:
            return Refusal(403, "the page must be one of the server; MONAI_LABEL_CORS_ORIGINS can add its address.")
        return None

    def _closed(self, method: str, parts: Sequence[str]) -> Refusal | None:
        if ".." in parts or any("\x00" in part for part in parts):
            return Refusal(400, "the path must have no '..'.")
        if parts[:1] == ["reload"]:
            return Refusal(403, "the app is loaded when the server starts.")
        if parts[:1] == ["logs"]:
            return Refusal(403, "the log, which may name patients, lies in the folder of the app.")
        if parts[:1] == ["model"] and method in ("PUT", "DELETE"):
            return Refusal(403, "weights are replaced by training, or in the folder of the bundle.")
        if parts[:1] == ["proxy"] and not self.has_archive:
            return Refusal(404, "this server has no DICOMweb archive.")
        return None

    def _unknown(self, method: str, parts: Sequence[str]) -> Refusal | None:
        kind = NAMED.get("/".join(parts[:-1])) if method == "POST" and len(parts) > 1 else None
        if kind is None or "/".join(parts) in NAMED:
            return None
        names = sorted(self.names()[kind])
        if parts[-1] in names:
            return None
        return Refusal(404, f"`{WORDS[kind]}` must be one of {names}, got {parts[-1][:40]!r}.")

    def _too_large(self, headers: Mapping[str, str]) -> Refusal | None:
        length = headers.get("content-length", "0")
        limit = self.limit(headers)
        if length.isdecimal() and int(length) > limit:
            return Refusal(413, f"the request must have at most {limit} bytes.")
        return None


def _odd_session(scope: Mapping[str, Any], parts: Sequence[str]) -> Refusal | None:
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get(SESSIONS, [])
    asked = [*asked, *(parts[1:2] if parts[:1] == ["session"] else [])]
    if all(is_session_id(session) for session in asked):
        return None
    return Refusal(404, "the session must be one that the server has given.")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
