"""GPUs of clusters as values: accelerators, nodes that have them, and affinity to those nodes. Pure."""
