from __future__ import annotations

from csi_model import errors
from csi_model.cli import exits


def _kinds(kind: type[errors.CsiModelError]) -> set[type[errors.CsiModelError]]:
    return {kind}.union(*map(_kinds, kind.__subclasses__()))


def test_every_kind_of_error_has_a_documented_exit_code() -> None:
    """No error of ours, subclasses in any package included, ends a command with a code that means nothing or success."""
    for kind in _kinds(errors.CsiModelError) - {errors.CsiModelError}:
        code = exits.code_of(kind.__new__(kind))
        assert code in exits.MEANINGS
        assert code not in {0, exits.FAILED}, kind


def test_a_subclass_ends_as_its_base_does() -> None:
    """The table is looked up along the MRO: still pulling is a way of being busy, and a failing disk no silent registry."""
    assert exits.code_of(errors.StillPullingError("x")) == exits.CODES[errors.BusyError]
    assert exits.code_of(errors.DiskMissingError("x")) == exits.CODES[errors.DiskError] != exits.CODES[errors.UnavailableError]


def test_an_error_without_a_kind_is_a_failure() -> None:
    """The bare base class, which nobody should raise, is not taken for success."""
    assert exits.code_of(errors.CsiModelError("x")) == exits.FAILED
