"""Training: batches without waste, one loop, and the gradient trace that watches it."""
