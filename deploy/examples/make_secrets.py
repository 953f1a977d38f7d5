"""Prints the Secrets of a new installation, with fresh random values, as one JSON List.

    python deploy/examples/make_secrets.py | kubectl apply -f -

Every namespace gets the keys that its pods mount as files, and no other; the token key is the same
everywhere. The passwords of Postgres are read from files, or made up (then create the roles with
them). Keep `credentials_key`: exchange keys that were saved under it cannot be read without it.
Standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "aifap-secrets"
KEYS_OF_NAMESPACE = {
    "finplatform": ("database_password", "token_key"),
    "fin-crypto": ("database_password", "token_key"),
    "fin-finwatcher": ("database_password", "token_key"),
    "fin-finwrapper": ("database_password", "token_key", "credentials_key", "control_token"),
}
PAPER_KEYS_OF_NAMESPACE = {
    "finplatform": ("reader_password",),
    "fin-finwrapper": ("simulator.json",),
}


def make_values(database_password: str, channels: dict[str, str]) -> dict[str, str]:
    """A value for every key; `channels` are the webhook addresses of `settings.json`."""
    control_token = secrets.token_urlsafe(32)
    simulator = {
        "control_token": control_token,
        "api_key": f"paper-{secrets.token_hex(8)}",
        "api_secret": secrets.token_urlsafe(32),
        "passphrase": secrets.token_urlsafe(16),
    }
    return {
        "database_password": database_password or secrets.token_urlsafe(32),
        "reader_password": secrets.token_urlsafe(32),
        "token_key": secrets.token_urlsafe(32),
        "credentials_key": secrets.token_urlsafe(32),
        "control_token": control_token,
        "simulator.json": json.dumps(simulator),
        "settings.json": json.dumps(channels),
    }


def secret_of(namespace: str, values: dict[str, str], *, paper: bool) -> dict[str, object]:
    """The Secret of one namespace."""
    keys = KEYS_OF_NAMESPACE[namespace] + ("settings.json",)
    if paper:
        keys += PAPER_KEYS_OF_NAMESPACE.get(namespace, ())
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "aifap"},
        },
        "type": "Opaque",
        "stringData": {key: values[key] for key in keys},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the List."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", action="store_true", help="also what overlays/local-paper needs")
    parser.add_argument("--database-password-file", type=Path)
    parser.add_argument("--slack-webhook-file", type=Path)
    parser.add_argument("--discord-webhook-file", type=Path)
    options = parser.parse_args(arguments)
    named = (
        ("slack_webhook_url", options.slack_webhook_file),
        ("discord_webhook_url", options.discord_webhook_file),
    )
    channels = {name: path.read_text().strip() for name, path in named if path is not None}
    password_file = options.database_password_file
    values = make_values(
        "" if password_file is None else password_file.read_text().strip(), channels
    )
    items = [secret_of(name, values, paper=options.paper) for name in KEYS_OF_NAMESPACE]
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
