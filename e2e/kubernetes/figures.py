"""What tests measure, as a table at the end of the run, however it was run: a test calls pytest's ``record_property(what, how_much)``.

Properties belong to a test's report, and reports reach the process that prints the summary from every worker of pytest-xdist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Record = Callable[[str, object], None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests that have any, those of failed ones too."""
    rows = rows_of(report for reports in terminalreporter.stats.values() for report in reports if isinstance(report, pytest.TestReport))
    if not rows:
        return
    terminalreporter.section("figures")
    for line in table(rows):
        terminalreporter.write_line(line)


def rows_of(reports: Iterable[pytest.TestReport]) -> list[tuple[str, str, str]]:
    """Test, what, how much; by test, and those of one as it has recorded them. The report of a test's last phase has them all."""
    last = sorted((report for report in reports if report.when == "teardown"), key=lambda report: report.nodeid)
    return [(report.nodeid.rpartition("/")[2], what, str(value)) for report in last for what, value in report.user_properties]


def table(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """A line a figure, below a line a test."""
    lines: list[str] = []
    last = ""
    for test, what, value in rows:
        if test != last:
            lines.append(test)
            last = test
        lines.append(f"    {what}: {value}")
    return lines
