"""Write docs/cli.md from the commands themselves: ``python -m csi_model.cli.document > docs/cli.md``."""

from __future__ import annotations

import inspect as python
import sys
from typing import TYPE_CHECKING, Any

import typer

from csi_model.cli import doctor, exits, images, inspect, pull
from csi_model.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEAD = """# The command line

<!-- Generated from csi_model/cli by `make docs`; edit the descriptions there. -->

```sh
csi-model pull registry.example/llm/tiny:v1
csi-model mount registry.example/llm/tiny:v1 /srv/tiny --exclude '*.bin'
csi-model images
csi-model unmount /srv/tiny
csi-model rm registry.example/llm/tiny:v1
```

`csi-model COMMAND --help` shows the options of a command, `csi-model --verbose COMMAND` what it does, `csi-model --version` the version.
Results go to standard output; progress, errors and events to standard error.

**The state directory** belongs to one process at a time. Beside a running driver `images`, `inspect` and `doctor` read it without its
lock; `pull`, `mount`, `unmount` and `rm` name the process that owns it and end with exit code 5. By hand, with a directory of one's own
(`--state-dir`), `pull` needs no root; mounting does.

**Credentials** are those of `--credentials-file`, or of the configuration's `registries.HOST.credentialsFile`, or of Docker's own file
(`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, which `docker login` and `oras login` write), in this order; each of them
replaces the next. Credential helpers, which are programs, are not run. With `sudo`, home is root's. `serve` reads only the configuration.

**Plain HTTP** is spoken to loopback addresses with `--plain-http`; to others when `registries.HOST.plainHttp` of the configuration says so.

**A pull** can be stopped with Ctrl-C or SIGTERM, or killed, at any time. The next one goes on with what is there: whole layers always,
unfinished ones where they are raw or plain tar. What no model on the node needs waits a day for that; afterwards the driver removes it within
the hour, and without a driver the next `pull`, `mount`, `unmount` or `rm` does. On a terminal there is a bar for all of it and one for each
layer under way (for every layer when there are no more than eight); elsewhere a line every five seconds.

**A mount** by hand outlives the command, is read-only, and is gone after a reboot; the same command brings it back. `unmount` removes the
directory, too, when it is empty.

**The driver** on a node:

```sh
csi-model serve --endpoint unix:///var/lib/kubelet/plugins/csi-model.dev/csi.sock --node-id "$(hostname)" \\
    --registration-dir /var/lib/kubelet/plugins_registry --config /etc/csi-model/config.yaml
```
"""


def render() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    parts = [_HEAD]
    for name, command in group.commands.items():
        parts.extend(_command(name, command))
        parts.extend(_json(name))
    parts.append("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")
    parts.extend(f"| {code} | {meaning} |\n" for code, meaning in exits.MEANINGS.items())
    parts.append("\nAn error is one line on standard error, which names the thing and the next step. `serve` writes it into its log.\n")
    return "".join(parts)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
    yield f"\n## `csi-model {' '.join([name, *(param.metavar for param in arguments)])}`\n\n"
    yield f"{python.cleandoc(command.help)}\n\n"
    yield "| argument or option | meaning |\n|---|---|\n"
    for param in arguments:
        yield f"| `{param.metavar}` | {param.help} |\n"
    for param in options:
        value = f" {param.metavar}" if param.metavar else ""
        yield f"| `{', '.join(param.opts)}{value}` | {_meaning(param)} |\n"


def _meaning(param: Any) -> str:
    remarks = []
    if param.required:
        remarks.append("required")
    if param.show_default and param.default not in {None, "", False}:
        remarks.append(f"default `{param.default}`")
    if param.envvar:
        remarks.append(f"or the environment's `{param.envvar}`")
    return f"{param.help} ({', '.join(remarks)})" if remarks else str(param.help)


def _json(name: str) -> Iterator[str]:
    """The fields of the command's JSON, which are kept stable."""
    known: dict[str, tuple[str, tuple[Mapping[str, str], ...]]] = {
        "pull": ("One object.", (pull.FIELDS,)),
        "images": ("A list of objects.", (images.FIELDS,)),
        "inspect": ("One object; below it the fields of a layer.", (inspect.FIELDS, inspect.LAYER_FIELDS)),
        "doctor": ("One object; below it the fields of a check.", (doctor.FIELDS, doctor.CHECK_FIELDS)),
    }
    if name not in known:
        return
    text, tables = known[name]
    yield f"\n`--json`: {text}\n"
    for fields in tables:
        yield "\n| field | meaning |\n|---|---|\n"
        for field, meaning in fields.items():
            yield f"| `{field}` | {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
