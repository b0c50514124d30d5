"""Recall: exact-match accuracy of every model."""
