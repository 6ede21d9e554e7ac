"""Code that two or more of the programs share."""
