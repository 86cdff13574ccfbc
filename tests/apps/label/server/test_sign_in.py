"""Tests of the sign-in by tokens, with a stand-in for PyJWT, which is not installed here."""

from types import SimpleNamespace

from monai_mil_ext.apps.label.server import accept_signed_tokens


def test_accept_signed_tokens_names_algorithms_with_a_public_key_only():
    calls = []
    auth = SimpleNamespace(jwt=SimpleNamespace(decode=lambda *args, **options: calls.append((args, options))))
    accept_signed_tokens(auth)
    auth.jwt.decode("token", "key", options={"verify_exp": True})
    ((args, options),) = calls
    assert args == ("token", "key")
    assert options["options"] == {"verify_exp": True}
    assert all(name.startswith(("RS", "PS")) for name in options["algorithms"])  # neither "none" nor a shared secret
