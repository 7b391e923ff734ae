"""The configuration file: one validated model with a default for everything."""
