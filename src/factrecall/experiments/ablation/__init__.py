"""Ablation: reset shared parameters to θpre."""
