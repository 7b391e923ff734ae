"""Exit codes of the command, one for each kind of failure."""

from __future__ import annotations

from csi_model import errors

FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: dict[type[errors.CsiModelError], int] = {
    errors.InvalidRequestError: USAGE,
    errors.NotFoundError: 3,
    errors.UnauthenticatedError: 4,
    errors.DeniedError: 4,
    errors.BusyError: 5,
    errors.ConflictError: 5,
    errors.UnavailableError: 6,
    errors.CorruptContentError: 7,
    errors.NoSpaceError: 8,
    errors.UnsupportedError: 9,
    errors.MountError: 10,
}
"""Looked up along an error's bases; docs/cli.md explains them."""


def exit_code(error: errors.CsiModelError) -> int:
    """The exit code for an error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILED)
