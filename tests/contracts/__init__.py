"""The contracts of public classes, and proof that each can be broken."""

import pytest

pytest.register_assert_rewrite("tests.contracts.laws")
