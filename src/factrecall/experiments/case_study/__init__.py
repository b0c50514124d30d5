"""Attention case study: one head, one fact."""
