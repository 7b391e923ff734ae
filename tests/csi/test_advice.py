from __future__ import annotations

import pytest

from csi_model.csi.advice import advised
from csi_model.errors import CsiModelError, DiskError, NotFoundError, StillPullingError, StoppedError, UnavailableError
from csi_model.registry.retry import TransientError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StillPullingError("1 of 2 GB"), "1 of 2 GB; it goes on, and kubelet asks again by itself within two minutes"),
        (UnavailableError("silent"), "silent; kubelet tries again by itself within two minutes"),
        (TransientError("503", after=7), "503; kubelet tries again by itself within two minutes"),
        (DiskError("I/O error"), "I/O error; kubelet tries again by itself within two minutes"),
        (StoppedError("the driver is stopping"), "the driver is stopping"),
        (NotFoundError("no such tag"), "no such tag"),
    ],
)
def test_who_waits_is_told_that_kubelet_tries_again(error: CsiModelError, text: str) -> None:
    """What passes by itself says so and keeps its kind; what somebody has to change does not."""
    with pytest.raises(type(error)) as caught, advised():
        raise error
    assert str(caught.value) == text
    assert type(caught.value) is type(error)
