"""Measure the speed and memory figures of the README and `docs/speed.md`: `python -m benchmarks`."""
