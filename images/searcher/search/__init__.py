"""Search: from a request to a page of results."""
