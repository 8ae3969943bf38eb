"""Measurements: ``python -m benchmarks`` against the peers, and scripts that stand alone."""
