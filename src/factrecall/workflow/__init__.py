"""The stages of a study as the workflow runs them."""
