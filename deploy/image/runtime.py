"""Lays out what the driver's image needs of its base: the interpreter, the libraries that it and the packages link to, certificates.

Runs in the build stage with the base's own Python: ``runtime.py ENVIRONMENT ROOT``. Everything keeps the path that it has in the base, so
whatever the base keeps where, the result runs without it. What is left out has no use without a shell: the shell itself, pip, compilers.
Files keep their owner package's record and licence in the way of distroless images, so that scanners find them.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Parts of the standard library that a program without terminal, windows, tests and installers never imports.
UNUSED = re.compile(
    r"__pycache__|site-packages|dist-packages|config-.*|test|tests|idlelib|tkinter|turtledemo|turtle\.py|lib2to3|ensurepip|venv|pydoc_data"
    r"|distutils|curses|dbm"
    r"|(readline|nis|_tkinter|_curses|_curses_panel|_dbm|_gdbm|_test.*|_xxtest.*|xx.*|_ctypes_test)\..*\.so"
)
NAMES = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class Root:
    """A root directory that is being filled with files of the running system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: set[Path] = set()

    def add(self, path: Path) -> None:
        """Copy a file, and each symbolic link on the way to it, to the same place."""
        followed = Path("/")
        for part in path.parts[1:]:
            followed /= part
            if followed.is_symlink():
                here = self.path / followed.relative_to("/")
                here.parent.mkdir(parents=True, exist_ok=True)
                if not here.is_symlink():
                    here.symlink_to(followed.readlink())
                rest = path.relative_to(followed)
                target = Path(os.path.normpath(followed.parent / followed.readlink()))
                if not followed.is_dir():
                    self.files.add(followed)
                self.add(target / rest)
                return
        here = self.path / path.relative_to("/")
        if here.exists():
            return
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, here)
        self.files.add(path)

    def write(self, name: str, text: str) -> None:
        """Make a file of our own."""
        here = self.path / name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(text)


def libraries(binaries: list[Path]) -> set[Path]:
    """Every shared library that the loader would load for the binaries, itself among them."""
    found: set[Path] = set()
    for binary in binaries:
        done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)  # noqa: S607 - the base's own
        if "not found" in done.stdout:
            sys.exit(f"{binary} links to something that this base lacks:\n{done.stdout}")
        found |= {Path(name) for name in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)}
    return found


def packages_of(files: set[Path], database: Path) -> set[str]:
    """The dpkg packages, with their architecture where dpkg says one, that own some of the files."""
    real = {os.path.realpath(file) for file in files} | {str(file) for file in files}
    owners = set()
    for listing in (database / "info").glob("*.list"):
        # A merged /usr lets a package own /lib/x although the file is /usr/lib/x.
        if any(line in real or f"/usr{line}" in real for line in listing.read_text().splitlines()):
            owners.add(listing.stem)
    return owners


def add_packages(root: Root, database: Path) -> None:
    """Record the packages that the files come from, each with its licence, where vulnerability scanners look."""
    # Nobody owns the bundle of certificates: it is made when its package is installed.
    owners = packages_of(root.files, database) | {"ca-certificates"}
    for record in (database / "status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", record, re.MULTILINE))
        name, architecture = fields.get("Package", ""), fields.get("Architecture", "")
        if not owners & {name, f"{name}:{architecture}"}:
            continue
        root.write(f"var/lib/dpkg/status.d/{name}", record.strip() + "\n")
        licence = Path("/usr/share/doc") / name / "copyright"
        if licence.exists():
            root.write(str(licence.relative_to("/")), licence.read_text(errors="replace"))


def add_python(root: Root) -> list[Path]:
    """Copy the interpreter and its standard library; returns what of it is machine code."""
    interpreter = Path(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    root.add(interpreter)
    machine = [interpreter]
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if not UNUSED.fullmatch(name)]
        for name in files:
            path = Path(folder, name)
            if UNUSED.fullmatch(name) or name.endswith((".a", ".pyc")):
                continue
            root.add(path)
            if name.endswith(".so"):
                machine.append(path)
    return machine


def main(environment: Path, path: Path) -> None:
    """Fill ``path``."""
    if sys.prefix != sys.base_prefix:
        sys.exit("run this with the base's own Python, not with that of a virtual environment")
    if not CERTIFICATES.exists():
        sys.exit(f"this base has no {CERTIFICATES}: install its package of certificates (ca-certificates)")
    root = Root(path)
    machine = add_python(root)
    machine += [found for found in environment.rglob("*.so*") if found.is_file()]
    # Ending a thread loads libgcc_s by name; nothing links to it.
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    unwinder = next(Path(found) for found in re.findall(r"^\s*libgcc_s\.so\.1 .*=> (\S+)$", known, re.MULTILINE))
    own = f"{environment}/"
    for library in sorted(libraries([*machine, unwinder]) | {unwinder}):
        if not str(library).startswith(own):
            root.add(library)

    root.add(CERTIFICATES)
    defaults = ssl.get_default_verify_paths()
    bundle = root.path / Path(os.path.realpath(Path(defaults.openssl_cafile).parent)).relative_to("/") / Path(defaults.openssl_cafile).name
    bundle.parent.mkdir(parents=True, exist_ok=True)
    if not bundle.exists():
        bundle.symlink_to(CERTIFICATES)
    settings = Path(defaults.openssl_cafile).parent / "openssl.cnf"
    described = [Path("/etc/ld.so.conf"), *Path("/etc/ld.so.conf.d").glob("*.conf"), Path("/etc/os-release"), Path("/etc/debian_version")]
    for file in (settings, *described):
        if file.exists():
            root.add(file)
    for name, text in NAMES.items():
        root.write(name, text)
    if (database := Path("/var/lib/dpkg")).is_dir():
        add_packages(root, database)
    subprocess.run(["/sbin/ldconfig", "-r", str(path)], check=True)
    shutil.rmtree(path / "var/cache", ignore_errors=True)
    (path / "tmp").mkdir(mode=0o1777)
    (path / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
