"""Linters, types, import contracts and the shape of the tree, as tests: the one test command is the whole truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ("oci", "formats", "tree", "erofs")


def _run(*command: str) -> None:
    done = subprocess.run([*command], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def test_the_linter_is_satisfied() -> None:
    """Every file passes ruff's rules."""
    _run(_tool("ruff"), "check", ".")


def test_the_format_is_kept() -> None:
    """Every file is as the formatter would write it."""
    _run(_tool("ruff"), "format", "--check", ".")


@pytest.mark.timeout(400)
def test_types_hold() -> None:
    """Mypy finds no error in strict mode."""
    _run(sys.executable, "-m", "mypy")


def test_imports_point_down() -> None:
    """The import contracts of pyproject.toml are kept."""
    _run(_tool("lint-imports"))


def test_modules_are_short() -> None:
    """No hand-written module has more than 400 lines."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in _tracked()
        if path.suffix == ".py" and "generated" not in path.parts and (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


@pytest.mark.timeout(600)
@pytest.mark.root
def test_the_pure_packages_are_covered(tmp_path: Path) -> None:
    """The tests of the packages that do no I/O run at least 95 % of their lines and branches."""
    config = tmp_path / "coverage.ini"
    config.write_text(f"[run]\nbranch = true\ndata_file = {tmp_path / 'data'}\n")
    folders = [f"tests/{package}" for package in PURE]
    packages = [f"--cov=csi_model.{package}" for package in PURE]
    options = [f"--cov-config={config}", "--cov-report=term:skip-covered", "--cov-fail-under=95", "-p", "no:cacheprovider", "-q"]
    _run(sys.executable, "-m", "pytest", *folders, *packages, *options)


def test_dependencies_are_pinned_and_explained() -> None:
    """Every dependency of pyproject.toml has one version in constraints.txt and a line in docs/dependencies.md."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split(r"[<>=!~\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines), "constraints are pins and nothing else"
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert names <= pinned
    explained = (ROOT / "docs" / "dependencies.md").read_text().lower()
    assert [name for name in sorted(names) if f"`{name}`" not in explained.replace("_", "-")] == []


def test_the_readmes_commands_exist() -> None:
    """Every make target that the README names is in the Makefile."""
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z0-9]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named <= targets


def test_no_file_names_a_machine() -> None:
    """No tracked file holds a path of somebody's checkout or home."""
    everybodys = {Path("/"), Path("/tmp"), Path("/var/tmp")}
    checkouts = b"" if ROOT.parent in everybodys else b"|" + re.escape(bytes(ROOT.parent)) + rb"/(?!\s)"
    homes = re.compile(rb"/(?:home|Users)/[a-z]\w*/" + checkouts)
    found = [str(path.relative_to(ROOT)) for path in _tracked() if homes.search(path.read_bytes())]
    assert not found


def test_no_file_names_a_package_host() -> None:
    """No tracked file says where packages come from: that is for the environment to say."""
    hosts = re.compile(
        rb"(?:pypi|pythonhosted|npmjs|crates|golang|debian|ubuntu)[.](?:org|com|io|net)|--?(?:extra-)?index-url|goproxy=", re.IGNORECASE
    )
    allowed = {ROOT / "tests" / "project" / "test_quality.py"}
    found = {
        str(path.relative_to(ROOT)): match[0] for path in _tracked() if path not in allowed and (match := hosts.search(path.read_bytes()))
    }
    assert not found
