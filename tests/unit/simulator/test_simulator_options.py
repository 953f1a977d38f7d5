"""What `aifap simulator` understands: one account per key, secrets or RSA public keys."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from module.model.errors import InvalidInput
from module.simulator.engine.engine_types import PositionMode
from module.simulator.options import SimulatorSettings, build_parser, settings_from


def settings(*arguments: str) -> SimulatorSettings:
    return settings_from(build_parser().parse_args(arguments))


def account(name: str) -> tuple[str, ...]:
    return ("--api-key", name, "--api-secret", f"s-{name}", "--passphrase", f"p-{name}")


def test_every_key_opens_an_account_with_the_same_balance_and_mode() -> None:
    found = settings(*account("a"), *account("b"), "--balance", "777", "--position-mode", "hedge")
    assert [
        (each.api_key, each.api_secret, each.passphrase, each.futures_usdt, each.position_mode)
        for each in found.accounts
    ] == [
        ("a", "s-a", "p-a", Decimal(777), PositionMode.HEDGE),
        ("b", "s-b", "p-b", Decimal(777), PositionMode.HEDGE),
    ]
    assert "s-a" not in repr(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--api-key", "a", "--passphrase", "p"),
        (*account("a"), "--api-key", "b"),
        (*account("a"), *account("a")),
    ],
    ids=["no secret", "one secret for two keys", "one key twice"],
)
def test_accounts_that_do_not_fit_together_are_refused_without_their_secrets(
    arguments: tuple[str, ...],
) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings(*arguments)
    assert "s-a" not in refused.value.message


def test_a_public_key_is_read_from_its_file(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    def written(name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
        path = tmp_path / name
        path.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return str(path)

    words = ("--api-key", "a", "--passphrase", "p", "--api-public-key")
    good = written("rsa.pem", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    (found,) = settings(*words, good).accounts
    assert found.api_secret.startswith("-----BEGIN PUBLIC KEY-----")
    other = written("ec.pem", ec.generate_private_key(ec.SECP256R1()))
    for wrong in (other, __file__):
        with pytest.raises(InvalidInput, match="RSA"):
            settings(*words, wrong)
