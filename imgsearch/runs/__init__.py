"""The run folder: its layout, its documents and the format of its tables."""
