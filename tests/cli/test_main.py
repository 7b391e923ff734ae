from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from csi_model import __version__
from csi_model.cli.edge import Commands
from csi_model.errors import CorruptContentError

if TYPE_CHECKING:
    from tests.cli.conftest import Person

COMMANDS = ("serve", "pull", "mount", "unmount", "rm", "images", "inspect", "doctor")


def test_the_version(person: Person) -> None:
    """--version says which csi-model it is."""
    result = person.run("--version")
    assert (result.exit_code, result.stdout) == (0, f"csi-model {__version__}\n")


def test_help_names_every_command(person: Person) -> None:
    """Without arguments, as with --help, the commands are listed."""
    assert all(f"\n  {name} " in person.run("--help").stdout for name in COMMANDS)
    assert "Commands:" in person.run().output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(person: Person, command: str) -> None:
    """-h works everywhere."""
    assert f"csi-model {command}" in person.run(command, "-h").stdout.replace("root ", "csi-model ")


def test_a_wrong_option_is_a_usage_error(person: Person) -> None:
    """What the parser refuses has the exit code of a malformed request."""
    assert person.run("pull", "--nonsense", "x").exit_code == 2


def test_help_loads_nothing_heavy() -> None:
    """--help answers at once, because it imports neither gRPC nor pydantic, rich, structlog or the engine."""
    program = (
        "import sys, csi_model.cli.main\n"
        "heavy = {'grpc', 'pydantic', 'rich', 'structlog', 'fsspec', 'csi_model.volumes.engine', 'csi_model.store.store'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_images_does_not_load_the_engine(person: Person) -> None:
    """Listing reads the store alone: what pulls, mounts and speaks gRPC stays unloaded."""
    program = (
        "import sys\nfrom csi_model.cli.main import app\n"
        "app(['images'], standalone_mode=False)\n"
        "heavy = {'grpc', 'fsspec', 'csi_model.volumes.engine', 'csi_model.pull.puller', 'csi_model.registry.client'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    from csi_model.store.store import Store

    Store.open(person.state, writable=True).close()
    environment = {**os.environ, "CSI_MODEL_STATE_DIR": str(person.state)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, stdout=subprocess.DEVNULL)


def _app(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    @app.command()
    def other() -> None:
        time.sleep(0)

    return app


def test_errors_of_ours_are_one_line() -> None:
    """An error that csi-model can name ends in its code, without a traceback."""
    result = CliRunner().invoke(_app(CorruptContentError("blob x is damaged")), ["fail"])
    assert (result.exit_code, result.stderr) == (7, "error: blob x is damaged\n")


def test_a_file_that_may_not_be_used_is_one_line() -> None:
    """A refusal by the filesystem names the file and the next step."""
    result = CliRunner().invoke(_app(PermissionError(13, "Permission denied", "/var/lib/x")), ["fail"])
    assert result.exit_code == 4
    assert result.stderr == "error: /var/lib/x may not be used (Permission denied); run as root, or name another --state-dir\n"


def test_a_bug_keeps_its_traceback() -> None:
    """What nobody foresaw is not dressed up: it comes out as it is."""
    error = ZeroDivisionError("bug")
    assert CliRunner().invoke(_app(error), ["fail"]).exception is error


def test_an_interrupt_has_its_code() -> None:
    """Ctrl-C without anything to say ends with 130."""
    result = CliRunner().invoke(_app(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_a_closed_pipe_is_no_failure(person: Person) -> None:
    """`csi-model doctor | head -0` ends quietly."""
    process = person.start("doctor", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert "Traceback" not in errors
    assert process.wait(20) in {0, 1}
    process.stderr.close()


def test_a_tracebacks_values_stay_hidden() -> None:
    """A bug's traceback shows no variable, which might hold a secret: neither typer's nor structlog's."""
    program = (
        "from csi_model.cli import logs; import structlog\n"
        "logs.for_commands(verbose=True)\n"
        "def serve():\n    password = 'hun' + 'ter2'\n    raise ValueError\n"
        "try: serve()\n"
        "except ValueError: structlog.get_logger().exception('x')\n"
        "import csi_model.cli.serve\n"
        "csi_model.cli.serve.serve = serve\n"
        "from csi_model.cli.main import app\n"
        "app(['serve'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("ValueError") >= 2
    assert "hunter2" not in result.stdout + result.stderr
