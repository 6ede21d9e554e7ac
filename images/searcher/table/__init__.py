"""The table of a run: its images as Arrow files, which ingest writes and the searcher maps into memory."""
