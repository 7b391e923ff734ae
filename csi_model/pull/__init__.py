"""The pull pipeline: fetch, verify, decode, index, write, once per layer."""
