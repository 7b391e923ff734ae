"""Benchmarks: csi-model beside what a user has today, on generated models served by a real registry. Run by ``make bench``."""
