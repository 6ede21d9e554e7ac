"""One run of the pipeline: its steps, the loop that takes them, and its number of shards at a time."""
