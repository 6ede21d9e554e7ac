"""Server processes: sockets, workers, signals and shutdown."""
