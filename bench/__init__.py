"""Speed and memory, measured beside what a user would pick instead: `python -m bench`."""
