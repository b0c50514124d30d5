"""Experiments after training: each selects parameters, composes weights and evaluates them."""
