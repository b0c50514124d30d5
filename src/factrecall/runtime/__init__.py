"""What every stage stands on: files, interruption, seeds, messages."""
