"""Measures Penstock beside nginx in the same run: `python -m benchmarks`."""
