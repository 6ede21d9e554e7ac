"""Plans shards and turns the images of each into vectors."""
