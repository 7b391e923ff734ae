"""Formats: manifest and config to placements, one module a format. No I/O."""
