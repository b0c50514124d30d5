"""Circuits: which heads and neurons support recall."""
