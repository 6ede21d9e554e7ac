"""Benchmarks of speed and memory, beside the usual alternatives: `python -m bench`."""
