"""Backends of Jobs: processes of this machine, a Kubernetes, machines that SkyPilot rents."""
