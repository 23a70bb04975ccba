"""The environment ``local-vault`` on the embedded OpenBao: what its stacks declare, and tokens that can do no more.

The stacks are synthesized for it, since their Terraform provider is not a Python package (declared.py). The
tokens are kept in files that only this user reads; the root's is used here alone.

What no stack declares is made as an administrator would make it: the authority of the PKI engine, whose key never
leaves the server, and the login of the database's administrator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import hvac
import requests
from hvac.exceptions import InvalidPath, VaultError

from rotation.errors import LocalError
from rotation.files import write_private
from rotation.kv_ledger import Leaf
from rotation.local import openbao
from rotation.local.declared import synthesized
from rotation.local.embedded import FOLDER
from rotation.local.embedded.local_vault import LocalVault
from rotation.local.embedded.local_vault.declared import provision as put_in_place
from rotation.manifest import Manifest
from rotation.plugins import Plugins
from rotation.sealing import is_sealed, unseal
from rotation.secret_value import SecretValue
from rotation.stores.vault_kv import LEDGER, to_fields, to_text

MOUNT = f"keyturn-{LocalVault.name}"
PKI = f"{MOUNT}-pki"
ADMINISTRATOR = "orders/db-admin"  # the secret with the database administrator's login
RUNNER_TOKEN = FOLDER / "openbao" / "runner-token"  # below the project
APPLICATION_TOKEN = FOLDER / "openbao" / "application-token"
_STACKS = tuple(f"{part}-{LocalVault.name}" for part in ("foundation", "secrets"))
_RUNNER = f"{MOUNT}-runner"
_PERIOD = "768h"  # a token ends when it is not renewed, by whoever uses it or the next `keyturn local up`, for so long
_AUTHORITY_LASTS = "87600h"


def provision(project: Path, address: str, administrator: SecretValue) -> None:
    """Make what is declared, an authority, the database administrator's login as a secret, and the two tokens.
    Idempotent.

    Raises :class:`LocalError` for what cannot be synthesized or is refused.
    """
    root = hvac.Client(address, token=openbao.custody(project / FOLDER / "openbao").root_token, timeout=30)
    policies = put_in_place(root, synthesized(project, _STACKS))
    reads = [policy for policy in policies if policy != _RUNNER]
    try:
        _have_authority(root)
        _keep(root, ADMINISTRATOR, administrator)
        _give_token(root, project / RUNNER_TOKEN, [_RUNNER])
        _give_token(root, project / APPLICATION_TOKEN, reads)
    except (VaultError, requests.RequestException) as error:
        what = (
            f"the embedded OpenBao refused an authority, the administrator's login or a token: {type(error).__name__}"
        )
    else:
        return
    raise LocalError(what)  # out here, so that an error that knows the request is not its context


def _have_authority(root: hvac.Client) -> None:
    """Unless the PKI engine has one, which the certificates in use may come from."""
    try:
        root.secrets.pki.list_issuers(mount_point=PKI)
    except InvalidPath:
        order = {"common_name": f"{LocalVault.name} root", "key_type": "ec", "ttl": _AUTHORITY_LASTS}
        root.write_data(f"{PKI}/root/generate/internal", data=order)


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


def values(project: Path, manifest: Manifest) -> Iterator[str]:
    """Every value in the store, unsealed too where it is sealed; retired generations are deleted there. The tokens, and
    what opens the server, are values too."""
    keys = openbao.custody(project / FOLDER / "openbao")
    yield from (keys.root_token, keys.unseal_key)
    yield from ((project / token).read_text(encoding="utf-8") for token in (RUNNER_TOKEN, APPLICATION_TOKEN))
    root = hvac.Client(os.environ["VAULT_ADDR"], token=keys.root_token, timeout=30)
    service = Plugins(project, manifest).keys(manifest.keys["orders"])
    sealed: list[tuple[str, int, int, SecretValue]] = []
    for path, value in _stored(root):
        yield value.reveal()
        name, _, last = path.removeprefix("_rotation/").rpartition("/")
        if is_sealed(value) and (leaf := Leaf.parse(last)) is not None:
            sealed.append((name, leaf.generation, leaf.revision, value))
    # Of a generation's envelopes the last one alone: the key may have given up what wrapped those before.
    last_ones = {(name, generation): value for name, generation, _, value in sorted(sealed, key=lambda each: each[:3])}
    for (name, generation), value in last_ones.items():
        yield unseal(value, name=name, generation=generation, service=service).reveal()


def _stored(root: hvac.Client) -> Iterator[tuple[str, SecretValue]]:
    """What every path holds now, but for the ledgers."""
    for path in _paths(root, ""):
        if not path.endswith(f"/{LEDGER}"):
            entry = root.secrets.kv.v2.read_secret(path, mount_point=MOUNT, raise_on_deleted_version=True)
            yield path, SecretValue(to_text(entry["data"]["data"]))


def _paths(root: hvac.Client, folder: str) -> Iterator[str]:
    """The paths of all entries below a folder that hold something."""
    for name in root.secrets.kv.v2.list_secrets(folder, mount_point=MOUNT)["data"]["keys"]:
        path = f"{folder}{name}"
        if name.endswith("/"):
            yield from _paths(root, path)
        elif root.secrets.kv.v2.read_secret_metadata(path, mount_point=MOUNT)["data"]["current_version"]:
            yield path
