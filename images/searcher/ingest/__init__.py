"""Ingest: from the parts of a run to a verified, published index."""
