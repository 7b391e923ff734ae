"""What kubelet will do about an error, added for the person who reads it in ``kubectl describe pod``.

kubelet asks again after pauses that double from half a second to two minutes, whatever the error; the engine, which also serves the
command line, does not know that.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.errors import StillPullingError, StoppedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PULLING = "it goes on, and kubelet asks again by itself within two minutes"
_UNAVAILABLE = "kubelet tries again by itself within two minutes"


@contextmanager
def advised() -> Iterator[None]:
    """Say of an error of the body that nobody has to do anything for another try, where that is so."""
    try:
        yield
    except StillPullingError as error:
        msg = f"{error}; {_PULLING}"
        raise StillPullingError(msg) from error
    except StoppedError:
        raise  # says what happens already
    except UnavailableError as error:
        msg = f"{error}; {_UNAVAILABLE}"
        raise type(error)(msg) from error
