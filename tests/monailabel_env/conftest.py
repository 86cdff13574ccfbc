"""Keeps pytest, which imports every module for its examples, from taking the stand-ins for the real packages."""

collect_ignore_glob = ["*"]
