"""Contracts of public classes, and tests that each contract can fail."""

import pytest

pytest.register_assert_rewrite("tests.contracts.laws")
