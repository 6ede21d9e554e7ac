"""The errors that decide what happens next: try again, give up, or tell the person what to type.

    ImgsearchError
    ├── UsageError        the person must change what was asked for       exit 2
    ├── TemporaryError    the same call may work in a while               exit 3
    └── PermanentError    no retry can mend this                          exit 4
        └── NotFound      the named thing is not there

`BadImage` is not one of them: one unusable image is a row in a table, never the end of a job.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage's process says with its exit status; the Job's podFailurePolicy reads it."""

    DONE = 0
    FAILED = 1
    """`run-pipeline`: the run ended, and a shard or a stage of it failed."""
    USAGE = 2
    TEMPORARY = 3
    PERMANENT = 4
    INTERRUPTED = 143
    """SIGTERM came, and what was in hand was written."""


class ImgsearchError(Exception):
    """An error whose text is one sentence for a person: what is wrong, and what to do."""

    exit_code: ExitCode


class UsageError(ImgsearchError):
    """Something that was asked for cannot be: a wrong path, an unknown model, a port in use."""

    exit_code = ExitCode.USAGE


class TemporaryError(ImgsearchError):
    """A service did not answer or refused for now; the same call may work later."""

    exit_code = ExitCode.TEMPORARY


class PermanentError(ImgsearchError):
    """What is there is wrong, and a retry would find it wrong again."""

    exit_code = ExitCode.PERMANENT


class NotFound(PermanentError):
    """The named object, collection or image is not there."""


class BadImage(Exception):
    """One image cannot be used; becomes a row of `bad-*.parquet` and the job goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        """Where it failed: `read` (its bytes could not be had) or `decode` (they are no image we can use)."""
        self.reason = reason
