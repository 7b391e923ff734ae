"""Views: the ladder of mount strategies, and targets."""
