"""The blocking publisher over TLS."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon.engines.redis import effort
from antiphon.engines.redis.dial import ask
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from antiphon.testing.faults.valkey import free_port
from tests.engines.redis.publisher.publishing import SERVERS, in_child, publishing


@pytest.mark.skipif(not os.access("/usr/bin/redis-server", os.X_OK), reason="the packaged server has no TLS")
def test_tls_is_spoken_and_verified_and_a_dead_connection_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    options: dict[str, Any] = {
        "tls_port": free_port(),
        "tls_cert_file": certificate,
        "tls_key_file": key,
        "tls_auth_clients": "no",
    }
    with ValkeyServer(binary=SERVERS["redis"], tls_ca_cert_file=certificate, **options) as server:
        url = f"rediss://localhost:{options['tls_port']}"
        good = {"address": url, "ssl_ca_certs": certificate}
        with publishing(good) as publisher:
            assert publisher.publish("g:a", b"1") == 0
            assert publisher.publish("g:a", b"x" * 300_000) == 0
            assert publisher.connections_made == 1
            server.command("CLIENT", "KILL", "TYPE", "normal")
            assert publisher.publish("g:a", b"2") == 0
            assert publisher.connections_made == 2
            assert in_child(lambda: publisher.publish("g:a", b"3")) == b"0"
            assert publisher.publish("g:a", b"4") == 0
            assert publisher.connections_made == 2
        (host,) = parse_hosts([good])
        assert asyncio.run(ask(host.address, [("PING",)], 30.0)) == [b"PONG"]  # type: ignore[union-attr]
        # One attempt, as when it failed just now: the last of several may have too little time left to see why.
        monkeypatch.setattr(effort, "PROBE_S", 30.0)
        with publishing(url, timeout_s=30.0) as publisher:
            publisher._pool.failures[0] = time.monotonic()
            with pytest.raises(EngineUnavailable, match="certificate"):
                publisher.publish("g:a", b"1")


def self_signed(folder: Path) -> tuple[str, str]:
    """Make a certificate for localhost, and its key."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    (folder / "key.pem").write_bytes(pem)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(folder / "cert.pem"), str(folder / "key.pem")
