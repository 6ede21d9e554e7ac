"""Administration of runs and indexes: reports, rollback, deletion."""
