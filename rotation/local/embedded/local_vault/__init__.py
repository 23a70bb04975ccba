"""``local-vault``: secrets, keys and certificates in OpenBao."""

# ruff: noqa: ARG002 (its part of the demo needs no load but its own)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.local.embedded import FOLDER, Embedded, Place, Say
from rotation.local.service import Service, python_service

if TYPE_CHECKING:
    from rotation.local.demo.load import Load
    from rotation.local.demo.scenario import Demo
    from rotation.manifest import Manifest


class LocalVault(Embedded):
    name = "local-vault"
    database = "orders_vault"
    deployed = ("application",)
    has_https = True
    also = "OpenBao"

    def services(self, folder: Path, place: Place) -> Iterator[Service]:
        ready = "/v1/sys/health?standbycode=503"  # unsealed, it is first a standby, and then elects itself
        yield python_service(folder, "openbao", "openbao", place.server, ready, "--folder", str(folder / "openbao"))

    def variables(self, project: Path, place: Place) -> dict[str, str]:
        return {"VAULT_ADDR": place.server}

    def reads(self, project: Path, place: Place) -> tuple[str, ...]:
        from rotation.local.embedded.local_vault.provisioning import APPLICATION_TOKEN

        return ("--vault", place.server, "--vault-token", str(project / APPLICATION_TOKEN))

    def provision(self, project: Path, place: Place, say: Say) -> None:
        from rotation.local.embedded.local_vault import provisioning
        from rotation.local.postgresql import Sample, provision

        sample = Sample(self.database, owner=f"{self.database}_owner", administrator="keyturn_vault_admin")
        administrator = provision(project / FOLDER / "postgresql", sample)
        provisioning.provision(project, place.server, administrator)
        say("what the stacks declare is in OpenBao, with a token for the runner and one for the application")

    def values(self, project: Path, manifest: Manifest) -> Iterator[str]:
        from rotation.local.embedded.local_vault import provisioning

        return provisioning.values(project, manifest)

    def demonstrate(self, demo: Demo, load: Load) -> None:
        from rotation.local.demo.certificate import certificate_rotation

        certificate_rotation(demo)
