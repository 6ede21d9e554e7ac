"""The files that the searcher serves, and the images that it fetches."""
