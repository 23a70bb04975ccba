"""The environment ``local-vault`` on the embedded OpenBao: what its stacks declare, and tokens that can do no more.

The stacks are synthesized for it, since their Terraform provider is not a Python package (vault_declared.py). The
tokens are kept in files that only this user reads; the root's is used here alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import InvalidPath, VaultError

from rotation.deploy import STACK_FILE, alone, synth
from rotation.errors import LocalError
from rotation.local import environment, openbao
from rotation.local.postgresql import write_private
from rotation.local.vault_declared import provision as put_in_place
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import to_fields

MOUNT = f"keyturn-{environment.VAULT}"
STACKS = tuple(f"{part}-{environment.VAULT}" for part in ("foundation", "secrets"))
_RUNNER = f"keyturn-{environment.VAULT}-runner"
_PERIOD = "768h"  # a token ends when it is not renewed, by whoever uses it or the next `keyturn local up`, for so long


def provision(project: Path, address: str, administrator: SecretValue) -> None:
    """Make what is declared, the database administrator's login as a secret, and the two tokens. Idempotent.

    Raises :class:`LocalError` for what cannot be synthesized or is refused.
    """
    root = hvac.Client(address, token=openbao.custody(project / ".keyturn/local/openbao").root_token, timeout=30)
    policies = put_in_place(root, _declared(project))
    reads = [policy for policy in policies if policy != _RUNNER]
    try:
        _keep(root, environment.VAULT_ADMINISTRATOR, administrator)
        _give_token(root, project / environment.RUNNER_TOKEN, [_RUNNER])
        _give_token(root, project / environment.APPLICATION_TOKEN, reads)
    except (VaultError, requests.RequestException) as error:
        what = f"the embedded OpenBao refused the administrator's login or a token: {type(error).__name__}"
    else:
        return
    raise LocalError(what)  # out here, so that an error that knows the request is not its context


def _declared(project: Path) -> list[dict[str, Any]]:
    with alone(project):
        folder = synth(project, STACKS)
        return [json.loads((folder / stack / STACK_FILE).read_text(encoding="utf-8")) for stack in STACKS]


def _keep(root: hvac.Client, name: str, value: SecretValue) -> None:
    """Make a value the current one of a secret, unless it is."""
    kv, fields = root.secrets.kv.v2, to_fields(value.reveal())
    try:
        kept = kv.read_secret_version(name, mount_point=MOUNT, raise_on_deleted_version=False)["data"]["data"]
    except InvalidPath:
        kept = None
    if kept != fields:
        kv.create_or_update_secret(name, fields, mount_point=MOUNT)


def _give_token(root: hvac.Client, path: Path, policies: Sequence[str]) -> None:
    """Keep a token of just these policies in a file; the one that is there is renewed, where it has them."""
    try:
        token = path.read_text(encoding="utf-8")
        kept = root.auth.token.lookup(token)["data"]
        if set(kept["policies"]) == set(policies):
            root.auth.token.renew(token)
            return
    except (FileNotFoundError, VaultError):
        pass
    made = root.auth.token.create(policies=list(policies), no_default_policy=True, no_parent=True, period=_PERIOD)
    write_private(path, made["auth"]["client_token"])
