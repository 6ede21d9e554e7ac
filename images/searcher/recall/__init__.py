"""Recall: the results of a store against exact search."""
