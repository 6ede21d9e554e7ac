"""The HTTP side of the searcher: routes, error responses, API keys, limits and headers."""
