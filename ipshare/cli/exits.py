"""exits: the exit codes of every verb, one table for ``--help``, the documentation and the tests."""

from __future__ import annotations

OK, FAILURE, USAGE, REFUSED, NOT_RUNNING, NO_PRIVILEGE, NO, INTERRUPTED, BROKEN_PIPE = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    130,
    141,
)

TEXT = {
    OK: "done, or nothing had to be done (the output says which)",
    FAILURE: "failed; the error says what was left as it was",
    USAGE: "the configuration or the command line has mistakes; nothing was changed",
    REFUSED: "understood and refused; nothing was changed",
    NOT_RUNNING: "no engine (or agent) of this node is running",
    NO_PRIVILEGE: "the caller may not do that",
    NO: "the question was answered, and the answer is no (differences, a path too narrow, packets filtered)",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM, the terminal went away)",
    BROKEN_PIPE: "the reader of the output went away",
}
