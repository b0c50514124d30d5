"""Grafting: how few fine-tuned parameters recover recall."""
