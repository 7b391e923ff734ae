"""Everything that is made from the chart or for it: ``python -m deploy.chart`` (``make manifests``) writes it, and the tests ask whether it is fresh.

- ``charts/csi-model/values.schema.json``: what helm checks values against.
- the table of values in docs/install.md.
- ``kubernetes/*.yaml``: the chart's objects for those who install without helm.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.values import CHART, schema, table

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = CHART / "values.schema.json"
PAGE = ROOT / "docs" / "install.md"
MANIFESTS = ROOT / "deploy" / "kubernetes"
NAMESPACE = RELEASE = "csi-model"

_TABLE = re.compile(r"(<!-- values: made by `make manifests` -->\n).*?(<!-- end of values -->)", re.DOTALL)
# What helm says of itself is no use in a file that is applied without it.
_HELMS = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n", re.MULTILINE)
_NAMESPACE = f"""\
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    # The driver's pods are privileged; the DaemonSet says why.
    pod-security.kubernetes.io/enforce: privileged
"""


class HelmError(Exception):
    """Helm is missing, or refused; the text is its own."""


def find_helm() -> str | None:
    """Helm of the machine, or the one that `make e2e` has built; None where there is neither."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-model-e2e"
    built = sorted(path for path in cache.glob("**/helm") if path.is_file() and os.access(path, os.X_OK))
    return shutil.which("helm") or next(map(str, reversed(built)), None)


def helm(*arguments: str) -> str:
    """What a helm command wrote.

    Raises:
        HelmError: there is no helm, or it failed.
    """
    program = find_helm()
    if program is None:
        msg = "no helm on PATH and none in the cache of the end-to-end tests; install Helm 3.14 or newer, or run `.ci/setup e2e`, which needs Go"
        raise HelmError(msg)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def template(*options: str, release: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART) -> str:
    """The chart's objects as YAML."""
    return helm("template", release, str(chart), "--namespace", namespace, *options)


def manifests() -> dict[str, str]:
    """The files of ``deploy/kubernetes`` by name."""
    node = template("--skip-tests")
    controller = template(
        "--set",
        "controller.enabled=true",
        *(f"--show-only=templates/controller/{name}.yaml" for name in ("deployment", "rbac", "serviceaccount")),
    )
    return {
        "csi-model.yaml": _file(
            "The driver: `kubectl apply -f` it after naming your image. Claims need controller.yaml as well.", _NAMESPACE + node
        ),
        "controller.yaml": _file("The controller, for StorageClasses and their claims; needs csi-model.yaml.", controller),
    }


def page(text: str) -> str:
    """docs/install.md with today's table of values."""
    return _TABLE.sub(lambda match: f"{match[1]}{table()}{match[2]}", text)


def schema_text() -> str:
    """values.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def _file(purpose: str, text: str) -> str:
    return f"# {purpose}\n# Made from deploy/charts/csi-model by `make manifests`; change that.\n{_HELMS.sub('', text)}"


def main() -> None:
    """Write all of it; the schema first, for helm reads it when it renders."""
    SCHEMA.write_text(schema_text())
    PAGE.write_text(page(PAGE.read_text()))
    MANIFESTS.mkdir(exist_ok=True)
    for name, text in manifests().items():
        (MANIFESTS / name).write_text(text)
    print(f"wrote {SCHEMA.relative_to(ROOT)}, the values in {PAGE.relative_to(ROOT)}, and {MANIFESTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
