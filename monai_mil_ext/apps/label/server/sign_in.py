"""Sign-in of MONAI Label by tokens of a Keycloak realm."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

__all__ = ["accept_signed_tokens"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")  # a realm publishes an RSA key


def accept_signed_tokens(auth: Any) -> None:
    """Let MONAI Label check tokens, which it does without the algorithms that PyJWT asks for.

    Args:
        auth: module ``monailabel.endpoints.user.auth``.
    """
    auth.jwt = SimpleNamespace(decode=partial(auth.jwt.decode, algorithms=list(ALGORITHMS)))
