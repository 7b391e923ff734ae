from __future__ import annotations

import pytest

from csi_model.linux.kernel import KernelVersion


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ("6.18.44-fc-v657", "#1 SMP PREEMPT_DYNAMIC", (6, 18, 44)),
        ("6.12.73+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.73-1 (2026-02-17)", (6, 12, 73)),
        ("6.1.0-18-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)", (6, 1, 76)),
        ("6.1.0-18-amd64", "", (6, 1, 0)),
        ("6.8.0-45-generic", "#45-Ubuntu SMP", (6, 8, 0)),
        ("5.14.0-503.el9.x86_64", "", (5, 14, 0)),
        ("7.0", "", (7, 0, 0)),
        ("6.18.0-rc3+", "", (6, 18, 0)),
    ],
)
def test_releases_of_distributions(release: str, version: str, expected: tuple[int, int, int]) -> None:
    """Major, minor and patch level are found whatever a distribution writes around them."""
    parsed = KernelVersion.parse(release, version)
    assert (parsed.major, parsed.minor, parsed.patch) == expected
    assert str(parsed) == release


def test_versions_compare_by_number() -> None:
    """6.12 is newer than 6.9, and the release text does not matter."""
    assert KernelVersion.parse("6.12.1") > KernelVersion.parse("6.9.30-x")
    assert KernelVersion.parse("6.12.1-a") == KernelVersion.parse("6.12.1-b")


def test_what_is_no_release_is_refused() -> None:
    """Text without a version is an error."""
    with pytest.raises(ValueError):
        KernelVersion.parse("linux")


def test_the_running_kernel() -> None:
    """The machine's own release parses."""
    assert KernelVersion.running().major >= 5
