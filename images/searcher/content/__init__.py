"""Images and run files that the searcher serves, and images that it fetches."""
