"""The configuration of a study: its sections, how it is read, its schema and its messages."""
