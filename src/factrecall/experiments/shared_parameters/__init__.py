"""Shared parameters: which parameters both tasks rank highly."""
