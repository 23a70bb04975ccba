"""The environments that the embedded servers make up. Every module here is one: ``local_vault`` is ``local-vault``.

All of them share the AWS API, which has their configuration objects, PostgreSQL, and the sample application, of which
each has its own rings. What else one has stands in its file, or in its folder: there ``provisioning`` puts in place
what its stacks declare, by ``declared``, where Terraform has no provider for it here.
"""

# ruff: noqa: ARG002 (an environment without servers of its own needs no place for them)

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from rotation.local.service import Service
from rotation.model import Ring
from rotation.plugins import load

if TYPE_CHECKING:
    from rotation.local.demo.load import Load
    from rotation.local.demo.scenario import Demo
    from rotation.manifest import Manifest

FOLDER = Path(".keyturn") / "local"  # below the project
Say = Callable[[str], None]


class Place(BaseModel):
    """Where the servers of one environment listen: ``server``, which has its secrets, and ``applications`` as URLs.
    ``https`` are the applications' HTTPS servers, as host:port, where they have one; ``database`` is what takes their
    orders, and ``database_server`` where that is a server of its own, as host:port."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: str
    applications: Mapping[Ring, str]
    https: Mapping[Ring, str] = {}
    database: Literal["postgresql", "mysql"] = "postgresql"
    database_server: str | None = None


class Embedded(ABC):
    """What one environment has beside what all have. ``database`` is the application's, and what the names of its users
    begin with; ``deployed`` are the parts that Terraform deploys; ``has_https`` tells that the application serves
    HTTPS, with a certificate that is one of the secrets; ``also`` names its own server for a person."""

    name: ClassVar[str]
    database: ClassVar[str]
    deployed: ClassVar[tuple[str, ...]]
    has_https: ClassVar[bool] = False
    also: ClassVar[str] = ""

    @property
    def has_mysql(self) -> bool:
        """Whether its database is in a MariaDB of its own, when its place is made; else it is in the PostgreSQL."""
        return False

    def services(self, folder: Path, place: Place) -> Iterator[Service]:
        """Its own servers, with their files in ``folder`` (absolute)."""
        yield from ()

    def variables(self, project: Path, place: Place) -> dict[str, str]:
        """What clients of its servers need in their environment, once it is provisioned."""
        return {}

    def reads(self, project: Path, place: Place) -> tuple[str, ...]:
        """The sample application's options for its way to the values (rotation/local/application/orders_api.py)."""
        return ()

    @abstractmethod
    def provision(self, project: Path, place: Place, say: Say) -> None:
        """Once its servers run: make the sample database, with the administrator's login as a secret, and whatever
        declarations Terraform does not deploy here. Idempotent. Raises KeyturnError or OSError."""

    @abstractmethod
    def values(self, project: Path, manifest: Manifest) -> Iterator[str]:
        """Every value that its store holds, and unsealed too where it is sealed; other credentials of its servers."""

    @abstractmethod
    def demonstrate(self, demo: Demo, load: Load) -> None:
        """The parts of the demo that are its own, after the others."""


def embedded(name: str) -> Embedded:
    """Raises :class:`~rotation.errors.DeclarationError` for an environment that is none of them."""
    return load(Embedded, name.replace("-", "_"))()


def names() -> tuple[str, ...]:
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))
