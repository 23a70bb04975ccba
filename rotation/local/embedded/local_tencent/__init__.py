"""``local-tencent``: secrets and keys on an emulated Tencent Cloud, and MariaDB where it is installed."""

# ruff: noqa: ARG002 (its application and commands find it by variables, and its part of the demo needs no load)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.local.embedded import FOLDER, Embedded, Place, Say
from rotation.local.service import Service, database_service, port_of, python_service

if TYPE_CHECKING:
    from rotation.local.demo.load import Load
    from rotation.local.demo.scenario import Demo
    from rotation.manifest import Manifest
    from rotation.secret_value import SecretValue

REGION = "ap-guangzhou"
# How many seconds the emulator takes a signed request for; 300 in the real cloud. The store waits three times as long
# before it retires anything, and is told this number in stacks/environments.py.
SIGNATURE_LIFE = 5


class LocalTencent(Embedded):
    name = "local-tencent"
    database = "orders_tencent"
    deployed = ("application",)
    also = f"an emulated Tencent Cloud (signatures live for {SIGNATURE_LIFE} s there, not 300), MariaDB if installed"

    @property
    def has_mysql(self) -> bool:
        from rotation.local import mariadb

        return mariadb.installed()

    def services(self, folder: Path, place: Place) -> Iterator[Service]:
        from rotation.local.mariadb import await_ready

        options = ["--folder", str(folder / "tencent"), "--signature-life", str(SIGNATURE_LIFE)]
        options += ["--key-rotation-pause", "0"]  # so that a demo can be run twice a day
        yield python_service(folder, "tencent", "tencent", place.server, "/keyturn/ready", *options)
        if place.database_server:
            yield database_service(folder, "mariadb", port_of(place.database_server), await_ready)

    def variables(self, project: Path, place: Place) -> dict[str, str]:
        from rotation.local.embedded.local_tencent.provisioning import RUNNER_KEY, runner_key

        if not (project / RUNNER_KEY).exists():  # its first start failed: the other environments can be used
            return {}
        key = runner_key(project)
        return {
            "TENCENTCLOUD_REGION": REGION,
            "TENCENTCLOUD_SECRET_ID": key.secret_id,
            "TENCENTCLOUD_SECRET_KEY": key.secret_key,
        }

    def reads(self, project: Path, place: Place) -> tuple[str, ...]:
        return ("--ssm", place.server)

    def provision(self, project: Path, place: Place, say: Say) -> None:
        from rotation.local.embedded.local_tencent import provisioning

        provisioning.provision(project, place.server, self._sample_database(project, place))
        say("what the stacks declare is in the emulated Tencent Cloud, with an access key for the runner")

    def _sample_database(self, project: Path, place: Place) -> SecretValue:
        """Its administrator's login."""
        from rotation.local import mariadb, postgresql

        administrator = "keyturn_tencent_admin"
        if place.database == "mysql":
            sample = mariadb.Sample(self.database, role=f"{self.database}_role", administrator=administrator)
            return mariadb.provision(project / FOLDER / "mariadb", sample)
        owned = postgresql.Sample(self.database, owner=f"{self.database}_owner", administrator=administrator)
        return postgresql.provision(project / FOLDER / "postgresql", owned)

    def values(self, project: Path, manifest: Manifest) -> Iterator[str]:
        from rotation.local.embedded.local_tencent import provisioning

        return provisioning.values(project, manifest)

    def demonstrate(self, demo: Demo, load: Load) -> None:
        from rotation.local.demo.function import function_rotation

        function_rotation(demo)
