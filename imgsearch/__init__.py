"""What two or more of the programs must agree on, and nothing else."""
