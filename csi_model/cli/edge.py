"""The edge of the command line: where errors become one line and an exit code, and Ctrl-C an orderly end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from csi_model.cli import exits
from csi_model.errors import CsiModelError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Commands(TyperGroup):
    """The group of all commands. A bug of ours passes through, for its traceback is what is needed then."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _interruptible():
                return super().invoke(ctx)
        except CsiModelError as error:
            _fail(str(error), exits.code_of(error))
        except PermissionError as error:
            _fail(f"{error.filename or 'a file'} may not be used ({error.strerror}); run as root, or name another --state-dir", 4)
        except BrokenPipeError:
            # The reader of our output has seen enough (`csi-model images | head`); nothing more can be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None
        except KeyboardInterrupt as stop:
            typer.echo(str(stop) or "stopped", err=True)
            raise typer.Exit(exits.INTERRUPTED) from None


def _fail(message: str, code: int) -> NoReturn:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C; a second signal ends the process at once, which costs nothing that the next start does not set right."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: object) -> NoReturn:
        for kind in kinds:
            signal.signal(kind, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
