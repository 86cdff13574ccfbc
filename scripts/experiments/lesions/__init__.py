"""Benchmark of localization on heads with inserted lesions."""
