"""The environments: where each one is, which provider version it pins, where its state is, and how carefully it goes.

``local`` is the embedded environment (`keyturn local up`); the accounts, repository and addresses of ``staging`` and
``production`` are examples to replace with your own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from modules.aws import Aws
from modules.declarations import Pace
from modules.rotation_trigger import Trigger
from modules.runner_identity import github_actions
from modules.vendor import AccountTrust, ConfigVendor, Trust, Vendor
from rotation.errors import DeclarationError
from rotation.manifest import Rehearsal
from rotation.model import Ring

# Where the embedded environment will be found once `keyturn local up` has said where it really is.
_PLACEHOLDER = "http://127.0.0.1:4566"
_ENDPOINTS = Path(".keyturn") / "local" / "endpoints.json"


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
class Environment:
    """One environment. ``order`` ranks it: lower ones go first. ``vendor`` has its secrets and keys, ``configuration``
    its configuration objects, whose place is declared beside them where that is another vendor. ``applications`` are
    the addresses of the consumers' rings; ``recovery_days`` and ``deletion_days`` are how long deleted secrets and keys
    can be brought back.
    ``rehearsal`` names what must have gone well before a rotation here: the same one, with the same code, there.
    ``trigger`` is the function in the cloud that turns what is due, where there is one. ``journal`` is where a pipeline
    without a disk keeps its journal, as a bucket and a prefix: KEYTURN_JOURNAL is s3://bucket/prefix there."""

    name: str
    order: int
    vendor: Vendor
    configuration: ConfigVendor
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

    @property
    def configured_elsewhere(self) -> bool:
        """Whether its configuration objects are another vendor's than its secrets."""
        vendor: object = self.vendor
        return self.configuration is not vendor

    @property
    def is_local(self) -> bool:
        return isinstance(self.state, LocalState)

    def stack(self, part: str) -> str:
        """The name of the environment's "foundation", "secrets" or "application" stack."""
        return f"{part}-{self.name}"


def environments(project: Path) -> tuple[Environment, ...]:
    return (
        local(project),
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
    """The embedded environment: AWS provider 3.39.0 is the one that comes as a Python package."""
    endpoint, applications = _endpoints(project / _ENDPOINTS)
    account = "123456789012"
    aws = Aws(environment="local", region="us-east-1", account=account, version="3.39.0", endpoint=endpoint)
    return Environment(
        name="local",
        order=0,
        vendor=aws,
        configuration=aws,
        state=LocalState((project / ".keyturn" / "local" / "terraform").resolve()),
        pace=Pace(
            bake=timedelta(seconds=4),
            settle=timedelta(seconds=2),
            patience=timedelta(seconds=10),
            grace=timedelta(seconds=3),
        ),
        config="keyturn-local-config",
        trusts=(AccountTrust(),),
        recovery_days=0,
        deletion_days=7,
        account=account,
        applications=applications,
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
    aws = Aws(environment=name, region=region, account=account, version="6.69.1")
    return Environment(
        name=name,
        order=order,
        vendor=aws,
        configuration=aws,
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


def _endpoints(path: Path) -> tuple[str, Mapping[Ring, str]]:
    """The address of the local AWS API, and those of the application's rings; placeholders before the first start."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["aws"], {Ring(ring): url for ring, url in found["applications"].items()}
    except FileNotFoundError:
        return _PLACEHOLDER, dict.fromkeys(Ring, _PLACEHOLDER)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DeclarationError(
            f"{_ENDPOINTS} cannot be understood: {type(error).__name__}: {error}",
            "Remove it and run `keyturn local up`.",
        ) from error
