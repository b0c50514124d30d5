"""Layer-wise ablation: whether a single layer carries what shared parameters carry."""
