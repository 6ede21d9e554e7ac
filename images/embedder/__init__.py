"""Plans shards and turns their images into vectors."""
