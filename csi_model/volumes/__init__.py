"""The use cases: publish, unpublish, pull, list and remove."""
