"""One flat index over all parameters of a model, and what is selected by it."""
