"""Check of the package on a CUDA device: tests, and a table of speed and memory."""
