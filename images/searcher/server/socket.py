"""The listening socket of the server."""

from __future__ import annotations

import errno
import socket

from imgsearch.errors import UsageError

BACKLOG = 1024
"""Connections that the system queues while the event loop is busy."""


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket. `::` listens on IPv4, too. Raises UsageError if the port is in use, or if the host is not local
    or no host name."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual_stack = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual_stack)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; choose another with --port") from error
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    except TypeError as error:  # Python's own refusal of a NUL, and of what it cannot encode
        raise UsageError(f"cannot listen on {host!r}: {error}") from error
