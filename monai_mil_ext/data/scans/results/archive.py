"""Sender of DICOM files to an archive (STOW-RS)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from monai_mil_ext.utils import optional_dependency

__all__ = ["DicomArchive", "NotStoredError"]

requests = optional_dependency("dicom", "requests")
HTTPAdapter = optional_dependency("dicom", "requests.adapters", "HTTPAdapter")
Retry = optional_dependency("dicom", "urllib3", "Retry")

BUSY = (429, 500, 502, 503, 504)  # statuses after which the same request may succeed
FAILED, REASON = "00081198", "00081197"  # FailedSOPSequence, FailureReason


class NotStoredError(ValueError):
    """An archive did not store all objects; their files are unchanged."""


class DicomArchive:
    """Archive that stores DICOM files, by DICOMweb (STOW-RS).

    A request that the archive does not answer, or answers as busy (429, 500, 502, 503 or 504), is repeated ``retries``
    times, after 0, 1, 2, 4, ... times ``pause`` seconds; the UIDs in the files keep it from storing them twice. Without
    ``auth``, a user name and a password are read from the ``.netrc`` file of the user. The files are only read.
    ``fingerprint`` tells archives apart without their address.

    Args:
        url: address of DICOMweb, such as ``http://127.0.0.1:8042/dicom-web``.
        retries: number of further tries.
        pause: seconds to wait between tries, doubled each time.
        timeout: seconds to wait for a connection, and for each part of an answer.
        auth: user name and password, or an object of ``requests`` that signs requests.

    Raises:
        ValueError: when ``url`` is no address of a web server.

    Example:
        >>> DicomArchive("http://127.0.0.1:8042/dicom-web/").url
        'http://127.0.0.1:8042/dicom-web/studies'
    """

    def __init__(self, url: str, retries: int = 3, pause: float = 1.0, timeout: float = 60.0, auth: Any = None) -> None:
        if not str(url).lower().startswith(("http://", "https://")):
            raise ValueError("`url` must begin with http:// or https://, got another.")
        if "@" in str(url).split("/")[2]:
            raise ValueError("`url` must be without a password, which belongs into the .netrc file, got one with it.")
        self.url = f"{str(url).rstrip('/')}/studies"
        self.fingerprint = sha256(self.url.encode()).hexdigest()[:12]
        self.retries = retries
        self.pause = pause
        self.timeout = timeout
        self.auth = auth

    def store(self, files: Sequence[str | os.PathLike[str]]) -> None:
        """Store all ``files`` by one request.

        Raises:
            NotStoredError: when the archive does not answer, refuses, or stores only some of the objects.
        """
        boundary, parts = uuid4().hex, []
        for file in files:
            head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
            parts += [head.encode(), Path(file).read_bytes(), b"\r\n"]
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        response = self._post(b"".join([*parts, f"--{boundary}--\r\n".encode()]), headers)
        failed = _failed(response)
        if response.status_code not in (200, 202) or failed:
            number = f" and {len(failed)} of {len(files)} objects refused{_reasons(failed)}" if failed else ""
            raise NotStoredError(f"the archive must store all objects, got status {response.status_code}{number}.")

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Any:
        retry = Retry(
            total=self.retries,
            backoff_factor=self.pause,
            status_forcelist=BUSY,
            allowed_methods=None,  # also POST
            raise_on_status=False,
            redirect=0,
            respect_retry_after_header=False,  # which may be hours
        )
        with requests.Session() as session:
            session.auth = self.auth
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            try:
                return session.post(self.url, body, headers=headers, timeout=self.timeout, allow_redirects=False)
            except requests.exceptions.RequestException as error:  # its message has the address
                tries = f"none after {self.retries + 1} tries ({type(error).__name__})"
                raise NotStoredError(f"the archive must answer, got {tries}.") from None


def _failed(response: Any) -> list[Any]:
    """Return the objects that the archive names as failed, of an answer of whatever form."""
    try:
        answer = response.json()
        datasets = answer if isinstance(answer, list) else [answer]
        return [item for dataset in datasets for item in dataset.get(FAILED, {}).get("Value", [])]
    except (AttributeError, ValueError):
        return []


def _reasons(failed: Sequence[Any]) -> str:
    codes = sorted({item.get(REASON, {}).get("Value", [None])[0] for item in failed if isinstance(item, dict)} - {None})
    return f" (reason {', '.join(f'{code:04X}H' for code in codes)})" if codes else ""
