"""Administration: reports, published indexes, rollback, and the deletion of runs."""
