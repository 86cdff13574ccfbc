"""Tests of the page of the report of a study."""
