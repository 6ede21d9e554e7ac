"""The command line: a file for each subcommand, with its arguments beside its code."""
