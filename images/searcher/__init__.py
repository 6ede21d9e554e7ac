"""Loads embedded runs into the store, publishes them, and answers searches."""
