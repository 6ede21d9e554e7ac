"""Search: from a request to ranked results."""
