"""What a study costs before it runs: parameters, memory, disk, hours, and what jobs ask for."""
