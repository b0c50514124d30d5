"""What experiments share: a pair of models, prompts."""
