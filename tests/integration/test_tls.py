"""A Dask cluster behind TLS on loopback: who has its certificates runs on it, and nobody else."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import dask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from processes import Cluster, dask_cluster
from servers import LOOPBACK, zonal
from synthetic import small_town

from zonal.cluster.connection import connect
from zonal.errors import InputError

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and one certificate that it signed."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        now = datetime.datetime.now(datetime.UTC)
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (folder.name, LOOPBACK)]
        files = []
        for place, (name, key) in enumerate(zip(names, keys, strict=True)):
            made = (
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(names[0])
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1))
                .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False
                )
                .add_extension(
                    x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False
                )
                .sign(keys[0], hashes.SHA256())
            )
            files.append(folder / ("ca.pem", "cert.pem")[place])
            files[-1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret = keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(secret)
        return cls(*files, folder / "key.pem")

    @property
    def words(self) -> list[str]:
        """What `dask scheduler` and `dask worker` take."""
        files = [("ca-file", self.ca), ("cert", self.cert), ("key", self.key)]
        return [word for name, path in files for word in (f"--tls-{name}", str(path))]

    @property
    def environment(self) -> dict[str, str]:
        """Dask's configuration for a client."""
        prefix = "DASK_DISTRIBUTED__COMM__TLS__"
        found = {"CA_FILE": self.ca, "CLIENT__CERT": self.cert, "CLIENT__KEY": self.key}
        return {prefix + name: str(path) for name, path in found.items()}


@dataclass(frozen=True)
class Town:
    """Zones and a tile, a cluster behind TLS, and the certificates that it knows."""

    folder: Path
    words: list[str]
    cluster: Cluster
    known: Authority


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("tls")
    words = [*small_town(folder), "--mirror", str(folder / "mirror")]
    known = Authority.make(folder / "known")
    with dask_cluster(folder / "cluster", *known.words, "--protocol", "tls") as cluster:
        cluster.add()
        yield Town(folder, words, cluster, known)


def test_a_run_over_tls_gives_the_table_of_a_local_run(town: Town, tmp_path: Path) -> None:
    assert town.cluster.address.startswith(f"tls://{LOOPBACK}:")
    done = zonal(
        *("run", *town.words, "--cluster", town.cluster.address, "--output", tmp_path / "tls"),
        folder=tmp_path,
        **town.known.environment,
        DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="true",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dask workers: 1, threads: 1" in done.stderr
    here = zonal(*("run", *town.words, "--workers", 1, "--output", tmp_path / "here"), folder=tmp_path)
    assert here.returncode == 0, here.stdout + here.stderr
    tables = [(tmp_path / name / "stats.parquet").read_bytes() for name in ("tls", "here")]
    assert tables[0] == tables[1]


def refused(town: Town, folder: Path, address: str, **environment: str) -> tuple[int, str]:
    """Exit code and the one sentence of a command that must not get anywhere."""
    done = zonal(
        *("run", *town.words, "--cluster", address, "--output", folder / "out"),
        folder=folder,
        **environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("zonal: ")]
    assert not (folder / "out").exists()
    assert town.cluster.scheduler.poll() is None
    return done.returncode, sentence


def test_a_client_without_certificates_is_told_what_to_set(town: Town, tmp_path: Path) -> None:
    code, sentence = refused(town, tmp_path, town.cluster.address)
    assert code == 3
    assert "no certificates to reach it with; set distributed.comm.tls" in sentence


def unreachable(town: Town, address: str, **environment: str) -> str:
    """Return the one sentence in place of a cluster, in this process, by Dask's configuration."""
    tls = {
        name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-"): value
        for name, value in environment.items()
    }
    with (
        dask.config.set(tls),
        pytest.raises(InputError) as caught,
        connect(address, None, None),
    ):
        pass
    assert town.cluster.scheduler.poll() is None
    return str(caught.value)


def test_certificates_of_another_authority_are_one_sentence_in_bounded_time(
    town: Town, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path / "other")
    sentence = unreachable(town, town.cluster.address, **other.environment)
    assert "answers at tls://" in sentence and "TLS certificate does not match" in sentence


def test_a_client_that_trusts_the_scheduler_but_is_not_trusted_is_one_sentence(
    town: Town, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path / "other")
    mixed = other.environment | {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(town.known.ca)}
    sentence = unreachable(town, town.cluster.address, **mixed)
    assert re.fullmatch(r"no Dask scheduler answers at tls://[\d.:]+: \w*SSL.*", sentence)


def test_a_client_that_speaks_plainly_to_tls_is_one_sentence(town: Town) -> None:
    sentence = unreachable(town, town.cluster.address.replace("tls://", "tcp://"))
    assert re.fullmatch(r"no Dask scheduler answers at tcp://[\d.:]+: [^<>]+", sentence)


def test_a_certificate_file_that_is_not_there_is_one_sentence(town: Town, tmp_path: Path) -> None:
    lost = town.known.environment | {"DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": str(tmp_path / "no.pem")}
    sentence = unreachable(town, town.cluster.address, **lost)
    assert "no certificates in distributed.comm.tls.ca-file, client.cert" in sentence
    assert "No such file" in sentence
