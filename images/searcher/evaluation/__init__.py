"""Evaluation: recall and precision of an index."""
