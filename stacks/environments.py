"""The environments: where each one is, which provider version it pins, where its state is, and how carefully it goes.

``local``, ``local-tencent`` and ``local-vault`` are the embedded environment (`keyturn local up`); the accounts,
repository and addresses of ``staging`` and ``production`` are examples to replace with your own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from modules.aws import Aws
from modules.declarations import Pace
from modules.rotation_trigger import Trigger
from modules.runner_identity import github_actions
from modules.tencentcloud import TencentCloud
from modules.vault import PkiRole, Vault
from modules.vendor import AccountTrust, ConfigVendor, Trust, Vendor
from rotation.errors import DeclarationError
from rotation.manifest import Rehearsal
from rotation.model import Ring

# Where the embedded environment will be found once `keyturn local up` has said where it really is.
_PLACEHOLDER = "http://127.0.0.1:4566"
_PLACEHOLDER_ENDPOINT = "127.0.0.1:4566"
_ENDPOINTS = Path(".keyturn") / "local" / "endpoints.json"
_ACCOUNT = "123456789012"
_UIN = "100000000001"  # of the emulated Tencent Cloud
_SIGNATURE_LIFE = 5  # seconds; as rotation/local/embedded/local_tencent/__init__.py tells the emulator

Database = Literal["postgresql", "mysql"]


@dataclass(frozen=True, slots=True)
class LocalState:
    """State files in one folder, an absolute path: relative ones would differ between synth and the CLI."""

    folder: Path


@dataclass(frozen=True, slots=True)
class S3State:
    """State in a bucket that exists already, encrypted, and locked by an object beside it (Terraform 1.10)."""

    bucket: str
    region: str

    def key(self, stack: str) -> str:
        return f"keyturn/{stack}.tfstate"


@dataclass(frozen=True, slots=True)
class CosState(S3State):
    """The same in a bucket of Tencent Cloud's COS, locked by a tag while the object beside it is written."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment. ``order`` ranks it: lower ones go first. ``vendor`` has its secrets and keys, and its
    configuration objects too, unless they are ``configured_by`` another one, which then has the application stack, and
    a role that may deploy it, for those whom it ``config_trusts`` (the runner, as the other vendor knows it).
    ``provisioned`` are the parts that something else than Terraform puts in place. ``applications`` are the addresses
    of the consumers' rings, and ``https`` those (host:port) where they serve a certificate that is rotated here;
    ``recovery_days`` and ``deletion_days`` are how long deleted secrets and keys can be brought back. ``rehearsal``
    names what must have gone well before a rotation here: the same one, with the same code, there. ``trigger`` is the
    function in the cloud that turns what is due, where there is one. ``journal`` is where a pipeline without a disk
    keeps its journal, as a bucket and a prefix: KEYTURN_JOURNAL is s3://bucket/prefix there, or
    cos:// for a bucket of Tencent Cloud. ``database`` is what the applications' databases are."""

    name: str
    order: int
    vendor: Vendor
    state: LocalState | S3State
    pace: Pace
    config: str
    trusts: tuple[Trust, ...]
    recovery_days: int
    deletion_days: int
    account: str
    applications: Mapping[Ring, str] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    trigger: Trigger | None = None
    journal: tuple[str, str] | None = None
    configured_by: ConfigVendor | None = None
    config_trusts: tuple[Trust, ...] = ()
    provisioned: frozenset[str] = frozenset()
    https: Mapping[Ring, str] = field(default_factory=dict)
    database: Database = "postgresql"

    @property
    def configuration(self) -> ConfigVendor:
        """The vendor of the configuration objects."""
        found = self.configured_by or self.vendor
        if not isinstance(found, ConfigVendor):
            raise DeclarationError(
                f"the environment {self.name}: {type(found).__name__} holds no configuration objects",
                "Say who does in stacks/environments.py: configured_by=Aws(…).",
            )
        return found

    @property
    def is_local(self) -> bool:
        return isinstance(self.state, LocalState)

    def stack(self, part: str) -> str:
        """The name of the environment's "foundation", "secrets" or "application" stack."""
        return f"{part}-{self.name}"


def environments(project: Path) -> tuple[Environment, ...]:
    return (
        local(project),
        local_tencent(project),
        local_vault(project),
        _remote("staging", order=1, account="111122223333", grace=timedelta(hours=24), recovery_days=7),
        _remote(
            "production",
            order=2,
            account="444455556666",
            grace=timedelta(hours=72),
            recovery_days=30,
            rehearsal=Rehearsal(environment="staging", within=timedelta(days=7)),
        ),
    )


def local(project: Path) -> Environment:
    """The embedded environment."""
    endpoints = _endpoints(project / _ENDPOINTS)
    vendor = _local_aws("local", endpoints)
    return _local("local", project, endpoints.local, vendor, trusts=(AccountTrust(),))


def local_tencent(project: Path) -> Environment:
    """The embedded environment with its secrets and keys on the emulated Tencent Cloud, and its configuration in S3 as
    ever. Which database it has, endpoints.json says.

    What is declared for Tencent Cloud is put in place by rotation/local/embedded/local_tencent/declared.py: its
    Terraform provider is no Python package.
    """
    endpoints = _endpoints(project / _ENDPOINTS)
    place = replace(endpoints.of("local-tencent"), https={})
    return _local(
        "local-tencent",
        project,
        place,
        TencentCloud("local-tencent", "ap-guangzhou", _UIN, endpoint=place.server, signature_life=_SIGNATURE_LIFE),
        trusts=(AccountTrust(),),
        configured_by=_local_aws("local-tencent", endpoints),
        provisioned=frozenset({"foundation", "secrets"}),
    )


def local_vault(project: Path) -> Environment:
    """The embedded environment with its secrets and keys in OpenBao, and its configuration in S3 as ever.

    `keyturn local up` itself puts in place what is declared for Vault, whose Terraform provider is no Python package.
    """
    endpoints = _endpoints(project / _ENDPOINTS)
    place = endpoints.of("local-vault")
    token = {"method": "token_file", "path": ".keyturn/local/openbao/runner-token"}
    certificates = PkiRole("orders-api", ("orders.localhost",), ttl=timedelta(days=30))
    vault = Vault(environment="local-vault", address=place.server, auth=token, pki_roles=(certificates,))
    return _local(
        "local-vault",
        project,
        place,
        vault,
        configured_by=_local_aws("local-vault", endpoints),
        provisioned=frozenset({"foundation", "secrets"}),
    )


def _local_aws(name: str, endpoints: _Endpoints) -> Aws:
    """AWS provider 3.39.0 is the one that comes as a Python package."""
    return Aws(environment=name, region="us-east-1", account=_ACCOUNT, version="3.39.0", endpoint=endpoints.aws)


def _local(
    name: str,
    project: Path,
    place: _Place,
    vendor: Vendor,
    *,
    trusts: tuple[Trust, ...] = (),
    configured_by: ConfigVendor | None = None,
    provisioned: frozenset[str] = frozenset(),
) -> Environment:
    return Environment(
        name=name,
        order=0,
        vendor=vendor,
        state=LocalState((project / ".keyturn" / "local" / "terraform").resolve()),
        pace=Pace(
            bake=timedelta(seconds=4),
            settle=timedelta(seconds=2),
            patience=timedelta(minutes=1),  # a machine may be busy
            grace=timedelta(seconds=3),
        ),
        config=f"keyturn-{name}-config",
        trusts=trusts,
        recovery_days=0,
        deletion_days=7,
        account=_ACCOUNT,
        applications=place.applications,
        https=place.https,
        database=place.database,
        configured_by=configured_by,
        provisioned=provisioned,
    )


def _remote(
    name: str,
    *,
    order: int,
    account: str,
    grace: timedelta,
    recovery_days: int,
    rehearsal: Rehearsal | None = None,
) -> Environment:
    region = "eu-central-1"
    return Environment(
        name=name,
        order=order,
        vendor=Aws(environment=name, region=region, account=account, version="6.69.1"),
        state=S3State(bucket=f"keyturn-state-{account}", region=region),
        pace=Pace(
            bake=timedelta(minutes=15),
            settle=timedelta(minutes=10),
            patience=timedelta(minutes=15),
            grace=grace,
        ),
        config=f"keyturn-{name}-config-{account}",
        trusts=(github_actions("example/orders", name),),
        recovery_days=recovery_days,
        deletion_days=30,
        account=account,
        applications={ring: f"https://orders-api-{ring}.{name}.example.com" for ring in Ring},
        rehearsal=rehearsal,
        journal=(f"keyturn-state-{account}", "journals"),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the embedded servers of one environment are: the one with its secrets, and the application's rings; and
    what its ``database`` is."""

    server: str = _PLACEHOLDER
    applications: Mapping[Ring, str] = field(default_factory=lambda: dict.fromkeys(Ring, _PLACEHOLDER))
    https: Mapping[Ring, str] = field(default_factory=lambda: dict.fromkeys(Ring, _PLACEHOLDER_ENDPOINT))
    database: Database = "postgresql"


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """The addresses of the embedded servers; placeholders before the first start of their environment."""

    aws: str = _PLACEHOLDER
    local: _Place = field(default_factory=lambda: _Place(https={}))
    others: Mapping[str, _Place] = field(default_factory=dict)

    def of(self, environment: str) -> _Place:
        return self.others.get(environment, _Place())


def _endpoints(path: Path) -> _Endpoints:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        others = {name: _place(place) for name, place in found.get("others", {}).items()}
        return _Endpoints(found["aws"], _Place(found["aws"], _by_ring(found["applications"]), {}), others)
    except FileNotFoundError:
        return _Endpoints()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DeclarationError(
            f"{_ENDPOINTS} cannot be understood: {type(error).__name__}: {error}",
            "Remove it and run `keyturn local up`.",
        ) from error


def _place(found: Mapping[str, Any]) -> _Place:
    database = found.get("database", "postgresql")
    if database not in get_args(Database):
        raise ValueError(f"there is no database {database!r}")
    return _Place(found["server"], _by_ring(found["applications"]), _by_ring(found.get("https", {})), database)


def _by_ring(addresses: Mapping[str, str]) -> dict[Ring, str]:
    return {Ring(ring): address for ring, address in addresses.items()}
