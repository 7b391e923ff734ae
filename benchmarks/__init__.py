"""Benchmarks: the driver against what its users would pick instead."""
