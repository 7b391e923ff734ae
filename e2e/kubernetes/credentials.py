"""Certificates, tokens and kubeconfigs of the node. All of it is made for one run and ends with the run's folder."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = 30


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where they lie: ``ca.crt``, ``<name>.crt`` and ``.key`` of apiserver and kubelet, ``sa.key``, ``tokens.csv``, two kubeconfigs."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def admin(self) -> Path:
        """The kubeconfig of somebody who may do anything."""
        return self.folder / "admin.kubeconfig"

    @property
    def kubelet(self) -> Path:
        """The kubeconfig of the node: what the Node authorizer and NodeRestriction let it do."""
        return self.folder / "kubelet.kubeconfig"


def make_credentials(folder: Path, *, node: str, addresses: tuple[str, ...]) -> Credentials:
    """Write them all for a node of this name; the API server answers at ``addresses`` and on loopback."""
    folder.mkdir(mode=0o700)
    made = Credentials(folder)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(_name("ca"), authority_key, _name("ca"), authority_key, ())
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    service = ("kubernetes", "kubernetes.default.svc", "127.0.0.1", *addresses)
    for file, subject, names in (("apiserver", _name("kube-apiserver"), service), ("kubelet", _name(node), (node, *addresses))):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate(subject, key, authority.subject, authority_key, names)
        (folder / f"{file}.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        _write_key(folder / f"{file}.key", key)
    _write_key(folder / "sa.key", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    admin, kubelet = secrets.token_hex(16), secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{admin},admin,1,"system:masters"\n{kubelet},system:node:{node},2,"system:nodes"\n')
    made.admin.write_text(_kubeconfig(folder / "ca.crt", admin))
    made.kubelet.write_text(_kubeconfig(folder / "ca.crt", kubelet))
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
) -> x509.Certificate:
    """Sign a certificate for ``names``; one without any is the authority's own."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )


def _kubeconfig(authority: Path, token: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {"server": "https://127.0.0.1:443", "certificate-authority": str(authority)}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "user"}}],
            "current-context": "e2e",
        }
    )
