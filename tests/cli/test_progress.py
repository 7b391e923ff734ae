from __future__ import annotations

import io

import pytest
from rich.console import Console

from csi_model.cli import progress
from csi_model.cli.progress import Bars, Lines, Look, Silence, shortened, visible, watcher
from csi_model.oci.digest import Digest
from csi_model.pull.progress import LayerProgress, Progress


def layer(number: int, done: int, total: int = 100_000_000, fetched: int = 0) -> LayerProgress:
    return LayerProgress(Digest.of(b"%d" % number), total, done, fetched)


def look(*layers: LayerProgress, rate: float | None = 10_000_000) -> Look:
    total, done = sum(item.total for item in layers), sum(item.done for item in layers)
    names = {item.digest: f"model-{number:05d}-of-00163.safetensors" for number, item in enumerate(layers)}
    return Look("r.example/m:v1", Progress(total, done, rate, layers), names)


def drawn(seen: Look, *, width: int = 80, height: int = 24) -> list[str]:
    """The lines that bars of this size show."""
    bars = Bars()
    bars._console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    assert seen.progress is not None
    rows = min(progress.ROWS, height - 2)
    with bars._console.capture() as captured:
        bars._console.print(bars._drawn(seen.progress, seen.names, rows))
    return captured.get().splitlines()


def test_few_layers_are_all_shown() -> None:
    """A model of few layers keeps a row for each, done or not begun, below the row for all of it."""
    lines = drawn(look(layer(1, 100_000_000), layer(2, 40_000_000), layer(3, 0)))
    assert len(lines) == 4
    assert lines[0].startswith("layers 1/3")
    assert "140 of 300 MB 10.0 MB/s     16 s" in lines[0]
    assert lines[1].endswith("done")


@pytest.mark.parametrize("width", [80, 66, 200])
def test_rows_leave_room_for_an_echoed_interrupt(width: int) -> None:
    """No row fills the line: a terminal writes ^C behind it, and a row that wraps could not be taken back."""
    assert all(len(line) <= width - 3 for line in drawn(look(layer(1, 5), layer(2, 0)), width=width))


def test_many_layers_do_not_flood_the_screen() -> None:
    """Of 163 layers only those under way are shown, and never more than a few, however small the terminal is."""
    layers = [layer(n, 100_000_000) for n in range(50)] + [layer(n, 5) for n in range(50, 70)] + [layer(n, 0) for n in range(70, 163)]
    assert len(drawn(look(*layers))) == 1 + progress.ROWS
    assert len(drawn(look(*layers), height=5)) == 4
    assert [item.done for item in visible(layers, 3)] == [5, 5, 5]
    assert visible(layers, -1) == ()


def test_a_blob_that_is_two_layers_has_one_row() -> None:
    """The same blob twice in a manifest is downloaded, and shown, once."""
    assert visible((layer(1, 5), layer(1, 5)), 8) == (layer(1, 5),)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config.json", "config.json"),
        ("onnx/deep/down/there/model.onnx", "model.onnx"),
        ("model-00001-of-00163.safetensors", "model-00001-o…ensors"),
        ("x" * 20, "x" * 20),
    ],
)
def test_long_names_stay_distinguishable(name: str, expected: str) -> None:
    """What tells shards apart stays: the file rather than the folder, and its beginning rather than its end alone."""
    assert shortened(name) == expected


def test_lines_come_at_the_beginning_and_then_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal the first line says how much there is and how much of it is here; the next waits its turn."""
    lines = Lines(every=60)
    lines.see(Look("r.example/m:v1", None))
    lines.see(look(layer(1, 40_000_000, fetched=10_000_000), layer(2, 0)))
    lines.see(look(layer(1, 50_000_000, fetched=20_000_000), layer(2, 0)))
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "r.example/m:v1: 2 layers, 200 MB, 30.0 MB of it here already\n"
    lines._every = lines._next = 0
    lines.see(look(layer(1, 50_000_000, fetched=20_000_000), layer(2, 0)))
    assert capsys.readouterr().err == "r.example/m:v1: 50 of 200 MB, 10.0 MB/s, about 15 s left\n".replace("50 of", "50.0 of")


def test_bars_are_for_terminals_without_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars need a terminal of their own; a machine that reads JSON is spared the lines."""
    assert type(watcher(machine=False, verbose=False)) is Lines
    assert type(watcher(machine=True, verbose=False)) is Silence
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert type(watcher(machine=True, verbose=False)) is Bars
    assert type(watcher(machine=False, verbose=True)) is Lines
