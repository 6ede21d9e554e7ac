"""GPUs of clusters as values: accelerators, nodes with GPUs, and affinity to these nodes. Pure."""
