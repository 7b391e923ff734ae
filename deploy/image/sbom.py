"""Writes what the image is made of, as CycloneDX 1.6: ``sbom.py ENVIRONMENT ROOT VERSION FILE``.

It is read from what is installed, not from what was asked for: the metadata of each Python package in ENVIRONMENT, and the records of the
base's packages that files in ROOT come from. Runs in the build stage, so that every image carries its own.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROJECT = "csi-model"


def normal(name: str) -> str:
    """A Python package's name as its package URL spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_names(described: metadata.PackageMetadata) -> list[str]:
    """The licences in the words of older metadata: a short field, or classifiers."""
    if (field := described.json.get("license")) and "\n" not in field:
        return [str(field)]
    return [name.rpartition(" :: ")[2] for name in described.get_all("Classifier") or () if name.startswith("License :: OSI Approved :: ")]


def python_packages(site: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each installed distribution as a component, and what it needs of the others."""
    installed = {normal(found.metadata["Name"]): found for found in metadata.distributions(path=[str(site)])}
    urls = {name: f"pkg:pypi/{name}@{found.version}" for name, found in installed.items()}
    components, dependencies = [], []
    for name, found in sorted(installed.items()):
        component: dict[str, Any] = {
            "type": "application" if name == PROJECT else "library",
            "bom-ref": urls[name],
            "name": name,
            "version": found.version,
            "purl": urls[name],
        }
        described = found.metadata.json
        if summary := described.get("summary"):
            component["description"] = summary
        if licence := described.get("license_expression"):
            component["licenses"] = [{"expression": licence}]
        elif names := licence_names(found.metadata):
            component["licenses"] = [{"license": {"name": name}} for name in names]
        components.append(component)
        needed = {
            normal(re.split(r"[^A-Za-z0-9._-]", wanted, maxsplit=1)[0]) for wanted in found.requires or () if "extra ==" not in wanted
        }
        dependencies.append({"ref": urls[name], "dependsOn": sorted(urls[other] for other in needed if other in urls)})
    return components, dependencies


def system_packages(root: Path) -> list[dict[str, Any]]:
    """Each package of the base that a file in the image comes from."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text(), re.MULTILINE))
    components = []
    for record in sorted((root / "var/lib/dpkg/status.d").glob("*")):
        fields = dict(re.findall(r"^(\S+): (.*)$", record.read_text(), re.MULTILINE))
        version = quote(fields["Version"], safe="~.-")
        place = f"arch={fields['Architecture']}&distro={release['ID']}-{release.get('VERSION_ID', 'unknown')}"
        url = f"pkg:deb/{release['ID']}/{fields['Package']}@{version}?{place}"
        supplier = {"supplier": {"name": fields["Maintainer"]}} if "Maintainer" in fields else {}
        components.append(
            {"type": "library", "bom-ref": url, "name": fields["Package"], "version": fields["Version"], "purl": url, **supplier}
        )
    return components


def document(environment: Path, root: Path, version: str) -> dict[str, Any]:
    """The whole bill, without times or random numbers: the same image gives the same one."""
    (site,) = environment.glob("lib/python3*/site-packages")
    packages, dependencies = python_packages(site)
    system = system_packages(root)
    # Where the base's packages hold Python, theirs is the version that says which security fixes are in.
    if not any(component["name"].startswith("libpython3") for component in system):
        release = platform.python_version()
        cpe = f"cpe:2.3:a:python:python:{release}:*:*:*:*:*:*:*"
        system.append({"type": "platform", "bom-ref": "python", "name": "python", "version": release, "cpe": cpe})
    image = {"type": "container", "bom-ref": "image", "name": PROJECT, "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]}
    own = f"pkg:pypi/{PROJECT}@{version}"
    parts = [own, *(component["bom-ref"] for component in system)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": image},
        "components": [*packages, *system],
        "dependencies": [{"ref": "image", "dependsOn": parts}, *dependencies],
    }


def main(environment: Path, root: Path, version: str, file: Path) -> None:
    """Write it."""
    bill = document(environment, root, version)
    if f"pkg:pypi/{PROJECT}@{version}" not in [component["bom-ref"] for component in bill["components"]]:
        (found,) = (component["version"] for component in bill["components"] if component["name"] == PROJECT)
        sys.exit(f"the image is to be version {version}, but csi_model.__version__ says {found}: pass --build-arg VERSION={found}")
    file.write_text(json.dumps(bill, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
