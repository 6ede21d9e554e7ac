"""The command line: each verb, its arguments beside its code."""
