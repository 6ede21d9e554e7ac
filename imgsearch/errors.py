"""The errors of all programs. The class of an error decides the next action: retry, fail, or correct the command.

    ImgsearchError
    ├── UsageError        the command, a setting or the input is invalid   exit 2
    ├── TemporaryError    a retry may succeed                              exit 3
    └── PermanentError    every retry fails                                exit 4
        └── NotFound      the named object does not exist

`BadImage` is not one of them: an unusable image becomes a row of a table, and the job continues.
"""

from __future__ import annotations

import errno
from enum import IntEnum

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""A retry does not help until someone frees space."""


class ExitCode(IntEnum):
    """Exit codes of all programs; the podFailurePolicy of a Job reads them."""

    DONE = 0
    FAILED = 1
    """`run-pipeline`: a shard or a stage of the run failed."""
    USAGE = 2
    TEMPORARY = 3
    PERMANENT = 4
    INTERRUPTED = 143
    """Stopped by SIGTERM; the current part is written."""


class ImgsearchError(Exception):
    """An error whose text is one sentence for the user: the problem, and the solution."""

    exit_code: ExitCode


class UsageError(ImgsearchError):
    """The request cannot be served: a wrong path, an unknown model, a port in use."""

    exit_code = ExitCode.USAGE


class TemporaryError(ImgsearchError):
    """A service did not answer, or refused the call for now. A retry may succeed."""

    exit_code = ExitCode.TEMPORARY


class PermanentError(ImgsearchError):
    """Data or a service is broken, and every retry fails."""

    exit_code = ExitCode.PERMANENT


class NotFound(PermanentError):
    """The named object, collection or image does not exist."""


class BadImage(Exception):
    """One image cannot be used. It becomes a row of `bad-*.parquet`, and the job continues."""

    def __init__(self, stage: str, reason: str, *, changed: bool = False) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        """`read`: its bytes cannot be read. `decode`: its bytes are not a supported image."""
        self.reason = reason
        self.changed = changed
        """Whether the source does not have the listed version of the image any more. The next update tries it again."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one sentence; without a text, the name of its class."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def os_reason(error: OSError) -> str:
    """An error of the operating system, with its file; for a full disk, one sentence with the solution."""
    if error.errno in FULL_DISK:
        place = f"the disk of {error.filename}" if error.filename else "a disk"
        return f"no space left on {place}: free some space, then give the same command again"
    return ": ".join(str(part) for part in (error.strerror, error.filename) if part) or str(error)
