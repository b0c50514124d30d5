"""Evaluation: which facts a model recalls."""
