"""Gradient similarity: whether statements and questions update the same parameters."""
