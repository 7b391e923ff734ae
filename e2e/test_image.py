"""The driver's image: what is in it and what is not, and that it works where nothing but its volumes can be written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from csi_model import __version__
from csi_model.generated import csi_pb2, csi_pb2_grpc
from e2e.conftest import disk_folder
from e2e.driver import Driver
from e2e.image import SOURCE, bill_of, build_image, missing_tools
from e2e.imagefile import ImageFile
from e2e.imagerun import Container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# The first test of a cold cache makes the base and builds the image.
pytestmark = pytest.mark.timeout(900)
_LIMIT = 120_000_000


@pytest.fixture(scope="module")
def archive() -> Path:
    """The image's OCI archive."""
    if missing := missing_tools():
        reason = f"building the image needs {' and '.join(missing)}; .ci/setup installs them"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return build_image()


@pytest.fixture(scope="module")
def container(archive: Path) -> Iterator[Container]:
    """The image's tree, ready to run, with a folder for state and sockets."""
    with disk_folder() as folder:
        (folder / "files").mkdir()
        yield Container.create(archive, folder / "root", folder / "files")


@pytest.fixture(scope="module")
def bill(archive: Path) -> dict[str, Any]:
    """The bill of materials beside the archive."""
    document: dict[str, Any] = json.loads(bill_of(archive).read_text())
    return document


def _files(container: Container) -> list[str]:
    return [str(path.relative_to(container.root)) for path in container.root.rglob("*")]


@contextmanager
def _serving(container: Container) -> Iterator[tuple[Driver, subprocess.Popen[bytes], float]]:
    """The driver as the chart starts it, and the seconds from its start until it is registered."""
    driver = Driver(container.folder / "node")
    command = ["csi-model", "serve", "--endpoint", f"unix://{driver.socket}", "--node-id", "node-1", "--state-dir", str(driver.state)]
    begun = time.monotonic()
    with (driver.folder / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            container.line(*command, "--registration-dir", str(driver.registration.parent)), stdout=log, stderr=subprocess.STDOUT
        )
    driver.process = process
    try:
        driver.wait_until_registered()
        yield driver, process, time.monotonic() - begun
    finally:
        process.kill()
        process.wait()


def test_the_image_is_small(archive: Path) -> None:
    """Its layers weigh at most 120 MB compressed, and the one that changes with each version less than 2 MB."""
    sizes = ImageFile(archive).layer_sizes()
    print(f"image: {sum(sizes) / 1e6:.1f} MB compressed; by layer", *(f"{size / 1e6:.1f}" for size in sizes))
    assert sum(sizes) <= _LIMIT
    assert sizes[-1] < 2_000_000


def test_nothing_in_it_installs_compiles_or_is_a_shell(container: Container) -> None:
    """It holds no shell, compiler, pip or setuptools, no cache of packages, and no program but Python and the driver."""
    files = _files(container)
    programs = {Path(name).name for name in files if re.match(r"(usr/)?(local/)?s?bin/|opt/csi-model/bin/", name)}
    assert {name for name in programs if not re.fullmatch(r"python[0-9.]*", name)} == {"csi-model"}
    unwanted = re.compile(r"(^|/)(pip|setuptools|ensurepip|wheel)(/|-[0-9].*/|$)|^var/(cache|lib/apt)|^root/|\.(deb|whl|a)$|(^|/)tests/")
    assert [name for name in files if unwanted.search(name)] == []


def test_nothing_of_the_machine_that_built_it_is_in_it(container: Container) -> None:
    """Neither pip's settings nor this machine's certificates are copied: the bundle is the one of the base's package."""
    assert [name for name in _files(container) if "pip.conf" in name or name.startswith(("src", "build", "run", "image", "dist"))] == []
    bundle = (container.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100
    own = Path("/usr/local/share/ca-certificates")
    assert [path.name for path in own.rglob("*.crt") if path.read_text().strip() in bundle] == []


def test_nothing_in_it_gains_privileges_or_is_written_by_others(container: Container) -> None:
    """No file is set-id, and only /tmp can be written by others than root."""
    modes = {path: path.lstat() for path in container.root.rglob("*") if not path.is_symlink()}
    assert [str(path) for path, found in modes.items() if found.st_mode & 0o6000] == []
    assert [path.name for path, found in modes.items() if found.st_mode & 0o002] == ["tmp"]
    assert {(found.st_uid, found.st_gid) for path, found in modes.items() if path != container.folder} == {(0, 0)}


def test_its_bytecode_is_there(container: Container) -> None:
    """Every module that can be imported is compiled, for a read-only root keeps no bytecode that a start would make."""
    sources = [path for path in container.root.rglob("*.py") if path.relative_to(container.root).parts[0] != "etc"]
    (tag,) = {path.name.rsplit(".", 2)[1] for path in container.root.rglob("*.pyc")}
    assert len(sources) > 1000
    assert [str(path) for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").exists()] == []


def test_its_labels_say_what_it_is(archive: Path) -> None:
    """OCI's annotations name title, licence, version, revision and base."""
    labels = ImageFile(archive).config()["config"]["Labels"]
    found = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert (found["title"], found["licenses"], found["version"]) == ("csi-model", "Apache-2.0", __version__)
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?|unknown", found["revision"])
    assert "csi-model-base" in found["base.name"]
    assert {"description", "source"} <= found.keys()


def test_the_version_has_one_source(archive: Path, container: Container, bill: dict[str, Any]) -> None:
    """The label, the command, the bill of materials and the archive's name say the version of the package."""
    said = container.run("csi-model", "--version").stdout
    label = ImageFile(archive).config()["config"]["Labels"]["org.opencontainers.image.version"]
    assert (said, label, bill["metadata"]["component"]["version"]) == (f"csi-model {__version__}\n", __version__, __version__)
    assert archive.name == f"csi-model-{__version__}.tar"


def test_the_dockerfile_alone_builds_the_same_version() -> None:
    """Without arguments the Dockerfile labels the image with the version of the package."""
    assert re.findall(r"^ARG VERSION=(.*)$", (SOURCE / "Dockerfile").read_text(), re.MULTILINE) == [__version__]


def test_another_version_is_refused(container: Container, tmp_path: Path) -> None:
    """A build whose argument disagrees with the package stops, and says which argument to pass."""
    with pytest.raises(SystemExit, match=f"pass --build-arg VERSION={re.escape(__version__)}"):
        _sbom().main(container.root / "opt/csi-model", container.root, "99.0", tmp_path / "bill.json")


def test_everything_of_ours_can_be_imported(container: Container) -> None:
    """No module that the driver may ever need is missing from what was copied of Python and of the packages."""
    script = (
        "import importlib, pkgutil, csi_model\n"
        "names = [m.name for m in pkgutil.walk_packages(csi_model.__path__, 'csi_model.') if not m.name.endswith('__main__')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names))"
    )
    done = container.run("python", "-W", "error", "-c", script)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


def test_it_trusts_and_resolves(container: Container) -> None:
    """TLS finds the certificates, and names are resolved by the files and the name servers that kubelet gives it."""
    script = "import ssl, socket; print(len(ssl.create_default_context().get_ca_certs()), socket.getaddrinfo('127.0.0.1', 443)[0][4][0])"
    done = container.run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    certificates, address = done.stdout.split()
    assert int(certificates) > 100
    assert address == "127.0.0.1"


def test_the_doctor_finds_it_well(container: Container) -> None:
    """`csi-model doctor`, found on PATH, sees a kernel, a disk and mounting that work from inside."""
    state = container.folder / "doctor"
    state.mkdir()
    done = container.run("csi-model", "doctor", "--json", "--state-dir", str(state))
    assert json.loads(done.stdout)["healthy"], done.stdout + done.stderr


def test_it_serves_with_a_read_only_root(container: Container) -> None:
    """The driver starts, registers, answers GetPluginInfo with the image's version, and ends with code 0 at SIGTERM."""
    with _serving(container) as (driver, process, seconds):
        with driver.channel() as channel:
            answer = csi_pb2_grpc.IdentityStub(channel).GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=5)
        resident = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        assert resident
        print(f"registered {seconds:.2f} s after its start; {int(resident[1]) / 1024:.0f} MiB resident")
        assert (answer.name, answer.vendor_version) == ("csi-model.dev", __version__)
        assert driver.stop() == 0
    assert "Traceback" not in driver.log
    assert "Read-only file system" not in driver.log


def test_the_bill_lists_what_is_installed(container: Container, bill: dict[str, Any]) -> None:
    """It names each Python package with its version and each package of the base that a file comes from, and nothing else."""
    from importlib import metadata

    (site,) = (container.root / "opt/csi-model").glob("lib/python3*/site-packages")
    installed = {(re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(), d.version) for d in metadata.distributions(path=[str(site)])}
    listed = {
        kind: {c["name"]: c["version"] for c in bill["components"] if c.get("purl", "").startswith(kind)}
        for kind in ("pkg:pypi", "pkg:deb")
    }
    assert set(listed["pkg:pypi"].items()) == installed
    assert {"csi-model", "grpcio", "zstandard"} <= listed["pkg:pypi"].keys()
    system = {path.name for path in (container.root / "var/lib/dpkg/status.d").iterdir()}
    assert listed["pkg:deb"].keys() == system
    assert {"libc6", "libssl3", "libsqlite3-0", "libpython3-stdlib", "ca-certificates"} <= {
        re.sub("t64$|(?<=libpython3)[.][0-9]+", "", name) for name in system
    }
    assert not {"bash", "dash", "dpkg", "apt", "perl-base", "coreutils"} & system
    assert len(bill["components"]) == len(installed) + len(system)


def test_every_package_is_pinned(bill: dict[str, Any]) -> None:
    """What is installed besides the driver has the version that constraints.txt names, so the same checkout gives the same image."""
    lines = [line.partition("==") for line in (SOURCE / "constraints.txt").read_text().splitlines()]
    pinned = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, _, version in lines}
    packages = {(c["name"], c["version"]) for c in bill["components"] if c.get("purl", "").startswith("pkg:pypi")}
    assert packages - pinned == {("csi-model", __version__)}


def test_the_base_keeps_its_licences(container: Container) -> None:
    """Each package of the base that the image redistributes is there with its copyright file."""
    system = {path.name for path in (container.root / "var/lib/dpkg/status.d").iterdir()}
    assert [name for name in sorted(system) if not (container.root / "usr/share/doc" / name / "copyright").exists()] == []


def test_the_bill_is_cyclonedx(archive: Path) -> None:
    """The schema of CycloneDX 1.6 accepts it, and would not accept it with an unknown field."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = bill_of(archive).read_text()
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"bomFormat"', '"bomKind"')) is not None


def _sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", SOURCE / "deploy" / "image" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
