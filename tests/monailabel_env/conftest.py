"""Keeps pytest, which imports every module for its examples, from taking the stand-in for the real package."""

collect_ignore_glob = ["*"]
