"""The HTTP side of the searcher: routes, errors, keys, limits and headers."""
