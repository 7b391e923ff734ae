"""However a run ends, nothing of its node stays on the machine."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from e2e.kubernetes.leftovers import traces
from e2e.kubernetes.machine import ROOT
from e2e.kubernetes.node import until

_RUN = """
import signal, time
from e2e.kubernetes import manifests
from e2e.kubernetes.node import running_node
from e2e.kubernetes.pods import Pods

signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background of a shell would inherit that it is ignored
with running_node() as node:
    # kubelet forgets to report a pod of its first second until it looks at all pods again, after 60 to 90 seconds.
    Pods(node).run(manifests.pod("runs", {}, tolerations=[{"operator": "Exists"}]), within=120)
    print(node.machine.folder.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.gate
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_broken_off_leaves_nothing(how: signal.Signals) -> None:
    """After Ctrl-C, and after SIGKILL of the test process, processes, mounts, cgroups and files of a node with a pod are gone."""
    with subprocess.Popen([sys.executable, "-c", _RUN], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        name = run.stdout.readline().strip()
        assert name, "the node did not come up"
        assert [trace for trace in traces().found if name in trace]
        run.send_signal(how)
    until("nothing is left", lambda: not [trace for trace in traces().found if name in trace], within=30)
