"""The server processes: socket, workers, signals and shutdown."""
