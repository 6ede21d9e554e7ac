"""Kubernetes Jobs as values: their manifests, their state, their results and their cost. Pure."""
