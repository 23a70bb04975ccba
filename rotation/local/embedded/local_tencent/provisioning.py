"""The environment ``local-tencent`` on the emulated Tencent Cloud: what its stacks declare, and a key for the runner.

The stacks are synthesized for it, since their Terraform provider is not a Python package (declared.py). The
root account's key is used here alone. The runner's is an access key of a CAM user, in a file that only this machine's
user reads; the emulator evaluates no policies, so it may do as much. The sample application signs with it, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rotation.errors import LocalError
from rotation.files import write_private
from rotation.local.declared import synthesized
from rotation.local.embedded import FOLDER
from rotation.local.embedded.local_tencent import REGION, LocalTencent
from rotation.local.embedded.local_tencent.declared import provision as put_in_place
from rotation.local.embedded.local_tencent.function import have_function
from rotation.local.tencent.embedded import Custody, custody
from rotation.manifest import Manifest, Secret
from rotation.model import Version
from rotation.plugins import Plugins
from rotation.sealing import is_sealed, unseal
from rotation.secret_value import SecretValue
from rotation.stores.tencent_ssm import CURRENT
from rotation.tencentcloud import Cloud, Connection, Manner, connect

ADMINISTRATOR = f"{LocalTencent.name}--orders--db-admin"  # the secret with the database administrator's login
RUNNER = f"keyturn-{LocalTencent.name}"  # a user of CAM
_DATA = FOLDER / "tencent"  # below the project
RUNNER_KEY = _DATA / "runner.json"
_GENERATION = re.compile(r"g([0-9]{10})(?:-r[0-9]+)?")  # a version of the store that holds one
_STACKS = tuple(f"{part}-{LocalTencent.name}" for part in ("foundation", "secrets"))


@dataclass(frozen=True, slots=True)
class _Signer:
    key: Custody

    def get_credential_info(self) -> tuple[str, str, str | None]:
        return self.key.secret_id, self.key.secret_key, None


class _Missing(LocalError):
    """There is none of that name."""


def provision(project: Path, endpoint: str, administrator: SecretValue) -> None:
    """Make what is declared, the database administrator's login as a secret, the function, and the runner's key.
    Idempotent.

    Raises :class:`LocalError` for what cannot be synthesized or is refused.
    """
    root = Cloud(REGION, endpoint, credentials=_Signer(custody(project / _DATA)))
    put_in_place(root, synthesized(project, _STACKS))
    _keep(root, ADMINISTRATOR, administrator)
    have_function(root)
    _give_key(root, project / RUNNER_KEY)


def runner_key(project: Path) -> Custody:
    """What the runner signs with. Raises :class:`LocalError` where the environment was never started here."""
    try:
        return Custody(**json.loads((project / RUNNER_KEY).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        what = f"{LocalTencent.name} has no key for the runner yet"
        raise LocalError(what, f"Run `keyturn local up -e {LocalTencent.name}`.") from error


def _keep(root: Cloud, name: str, value: SecretValue) -> None:
    """Make a value the current one of a secret, unless it is."""
    version = {"SecretName": name, "VersionId": CURRENT}
    new = {**version, "SecretString": value.reveal()}
    try:
        doing = _manner(f"read the secret {name}", "SecretString")
        if root.call("ssm", "GetSecretValue", version, doing)["SecretString"] != value.reveal():
            root.call("ssm", "UpdateSecret", new, _manner(f"keep a value in the secret {name}"))
    except _Missing:
        root.call("ssm", "CreateSecret", new, _manner(f"make the secret {name}"))


def _give_key(root: Cloud, path: Path) -> None:
    """Keep an access key of the runner's in a file; the one that is there stays while it is the runner's."""
    uin = _runner(root)
    doing = _manner(f"list the access keys of {RUNNER}", "AccessKeys")
    keys = root.call("cam", "ListAccessKeys", {"TargetUin": uin}, doing)["AccessKeys"]
    active = {key["AccessKeyId"] for key in keys if key["Status"] == "Active"}
    if not path.exists() or Custody(**json.loads(path.read_text(encoding="utf-8"))).secret_id not in active:
        for key in keys:
            _drop_key(root, {"TargetUin": uin, "AccessKeyId": key["AccessKeyId"]})
        doing = _manner(f"make an access key for {RUNNER}", "AccessKey")
        made = root.call_once("cam", "CreateAccessKey", {"TargetUin": uin}, doing)["AccessKey"]
        write_private(path, json.dumps(asdict(Custody(made["AccessKeyId"], made["SecretAccessKey"]))))


def _runner(root: Cloud) -> int:
    """The UIN of the runner's user, made where there is none."""
    try:
        doing = _manner(f"look for the user {RUNNER}", "Uin")
        return int(root.call("cam", "GetUser", {"Name": RUNNER}, doing)["Uin"])
    except _Missing:
        return int(root.call_once("cam", "AddUser", {"Name": RUNNER}, _manner(f"make the user {RUNNER}", "Uin"))["Uin"])


def _drop_key(root: Cloud, key: dict[str, Any]) -> None:
    doing = _manner(f"drop an access key of {RUNNER}")
    root.call("cam", "UpdateAccessKey", {**key, "Status": "Inactive"}, doing)
    root.call("cam", "DeleteAccessKey", key, doing)


def values(project: Path, manifest: Manifest) -> Iterator[str]:
    """Every value in the store, unsealed too where it is sealed, and what the root account signs with. Not what the
    runner signs with: that is in the environment of its commands and their children. The process has the runner's
    variables."""
    yield custody(project / _DATA).secret_key
    plugins = Plugins(project, manifest)
    for secret in manifest.secrets.values():
        store = plugins.store(secret)
        for version in _versions(secret):
            value = store.read(secret.stored_as, version)
            yield value.reveal()
            if is_sealed(value) and secret.key is not None and version.generation is not None:
                service, generation = plugins.keys(manifest.keys[secret.key]), version.generation
                yield unseal(value, name=secret.stored_as, generation=generation, service=service).reveal()
        for other in secret.reads:
            yield store.read(other).reveal()


def _versions(secret: Secret) -> Iterator[Version]:
    """Those that hold a value, but for the copy of the current one."""
    cloud = connect(Connection(region=REGION, endpoint=secret.store.options["endpoint"]))
    doing = _manner(f"list the secret {secret.stored_as}", "SecretName")
    listed = cloud.call("ssm", "ListSecretVersionIds", {"SecretName": secret.stored_as}, doing)["Versions"] or ()
    for version_id in (version["VersionId"] for version in listed):
        if match := _GENERATION.fullmatch(version_id):
            yield Version(version_id, int(match[1]))


def _manner(doing: str, *requires: str) -> Manner:
    return Manner(doing, LocalError, {"ResourceNotFound": _Missing}, requires, quiet=True)
