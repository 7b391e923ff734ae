from __future__ import annotations

from pathlib import Path

from csi_model.cli import exits
from csi_model.cli.document import render
from csi_model.cli.main import app
from csi_model.config.model import Csi

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_fresh() -> None:
    """docs/cli.md says what the commands say of themselves; `make docs` writes it."""
    assert PAGE.read_text() == render()


def test_the_page_names_every_command_and_exit_code() -> None:
    """Nothing that can be run, and no way to end, is left out."""
    page = render()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"## `csi-model {command.callback.__name__.replace('_', '-')}" in page
    for code in {0, *exits.CODES.values(), exits.INTERRUPTED}:
        assert f"\n| {code} | " in page


def test_the_example_of_an_endpoint_is_one_that_kubelet_reaches() -> None:
    """The path is announced to kubelet, which opens it on the host: the example lies where kubelet's plugins have their sockets."""
    usual = f"unix://{Csi().kubelet_root}/plugins/{Csi().driver_name}/csi.sock"
    serve = render().partition("## `csi-model serve`")[2].partition("\n## ")[0]
    (line,) = (line for line in serve.splitlines() if line.startswith("| `--endpoint URL`"))
    assert usual in line
