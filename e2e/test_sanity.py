"""csi-sanity, the conformance suite for CSI drivers, against the real driver with real mounts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.models import push_artifact

if TYPE_CHECKING:
    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry

ROOT = Path(__file__).resolve().parents[1]
_SUMMARY = re.compile(r"(\d+) Passed.*?(\d+) Failed.*?(\d+) Pending.*?(\d+) Skipped")


def _program() -> str:
    beside = Path(sys.executable).parent / "csi-sanity"
    found = str(beside) if beside.exists() else shutil.which("csi-sanity")
    if found is None:
        if os.environ.get("CI") == "true" and shutil.which("go"):
            pytest.fail("csi-sanity is missing although Go is here; .ci/setup builds it")
        pytest.skip("csi-sanity is not installed; .ci/setup builds it where Go is")
    return found


def test_csi_sanity_passes(driver: Driver, fake: FakeRegistry, folder: Path) -> None:
    """Every spec that runs passes; what is skipped is skipped for one of the reasons that docs/csi-sanity.md lists."""
    program = _program()
    reference = push_artifact(fake, "llm/tiny", {"model.bin": b"weights"})
    driver.start()
    parameters = folder / "parameters.yaml"
    parameters.write_text(f"reference: {reference}\n")
    mounts = driver.kubelet / "pods"
    done = subprocess.run(
        [
            program,
            f"--csi.endpoint={driver.socket}",
            f"--csi.mountdir={mounts}/sanity-target",
            f"--csi.stagingdir={mounts}/sanity-staging",
            f"--csi.testvolumeparameters={parameters}",
            "--ginkgo.no-color",
            "--ginkgo.v",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    (summary,) = _SUMMARY.findall(done.stdout) or [None]
    assert summary is not None, done.stdout[-4000:] + done.stderr[-2000:]
    passed, failed, _, skipped = map(int, summary)
    print(f"csi-sanity: {passed} passed, {failed} failed, {skipped} skipped")
    assert (done.returncode, failed) == (0, 0), done.stdout[-8000:]
    reasons = set(re.findall(r"\[SKIPPED\] ([^\n\[]+)\n", done.stdout))
    listed = (ROOT / "docs" / "csi-sanity.md").read_text()
    assert [reason for reason in sorted(reasons) if reason.strip() not in listed] == []
