"""Plans a run, creates its Jobs, watches them, and shows what they do."""
