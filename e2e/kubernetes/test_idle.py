"""What the driver's pod costs a node on which nobody asks for a model, and how soon after its start kubelet knows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from e2e.kubernetes.node import DRIVER, until

if TYPE_CHECKING:
    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.node import Node

_IDLE = 20
_MEMORY = 128 << 20
_CPU = 0.5
_REGISTERED = 15


def test_an_idle_driver_costs_little(node: Node, driver: Installation, record_property: Record) -> None:
    """A driver that was just installed is in CSINode within seconds of its start; idle, probes included, it needs little memory and CPU."""
    driver.uninstall()
    until("kubelet knows no driver", lambda: node.drivers() == [])
    driver.release()
    until("CSINode lists the driver", lambda: DRIVER in node.drivers(), within=120)
    seen = time.clock_gettime(time.CLOCK_BOOTTIME)
    until("the driver is Ready", driver.ready)
    registered = seen - driver.started()
    # The first reconciliation and the startup probe, every 2 s, are over.
    time.sleep(5)
    used = driver.cpu_seconds()
    time.sleep(_IDLE)
    used = driver.cpu_seconds() - used
    resident = driver.resident()
    record_property("registered after the start of its process", f"{registered:.1f} s")
    record_property("memory of the idle driver", f"{resident / 2**20:.0f} MiB")
    record_property(f"CPU time of {_IDLE} idle seconds", f"{used:.2f} s")
    assert registered < _REGISTERED
    assert resident < _MEMORY
    assert used < _CPU
