"""Models: where they come from, and what guards them on the way."""
