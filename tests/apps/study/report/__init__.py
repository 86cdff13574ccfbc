"""Tests of the report of a study."""
