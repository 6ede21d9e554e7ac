"""One run of the pipeline: its steps, the loop that takes them, and how many shards at a time."""
