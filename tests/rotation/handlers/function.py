"""The function's surroundings, without Terraform: an AWS API, a database, a manifest; and Secrets Manager's side."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rotation.engine import Engine
from rotation.handlers.steps import Step, take
from rotation.journal import Journal
from rotation.manifest import Consumer, ConsumerRing, Manifest, Plugin, Rehearsal, Secret, digest_of_sources
from rotation.model import Acceptance, Credential, Ring, Strategy, Version
from rotation.plugins import Plugins
from rotation.schedule import Schedule
from rotation.secret_value import SecretValue
from tests.fixtures.aws import AwsApi
from tests.fixtures.postgresql import Database

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:keyturn"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
DB, TOKEN, USED = "orders/db", "orders/api-token", "orders/used"
HOURLY = Schedule(every=timedelta(hours=1), immediately=True)


@dataclass
class Function:
    """One environment: a database login and a token without consumers, and a token with one."""

    project: Path
    api: AwsApi
    database: Database
    rehearsal: Rehearsal | None = None
    environment: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.client: Any = self.api.client("secretsmanager")
        self.manifest = self._declared()
        self.plugins = Plugins(self.project, self.manifest)  # kept: boto3 takes its time to make a client
        self.manifest.write(self.project)
        self.client.create_secret(Name=self.administrator, SecretString=self.database.administrator.reveal())
        for secret in self.manifest.secrets.values():
            self.client.create_secret(Name=secret.stored_as)

    @property
    def administrator(self) -> str:
        return f"{self.environment}/admin"

    def _declared(self) -> Manifest:
        login = {
            "administrator": self.administrator,
            "username_base": f"{self.database.name}_app",
            "owner_role": self.database.owner,
            "dbname": self.database.name,
        }
        ring = ConsumerRing(rendered=Path("rendered.yaml"), addresses=())
        consumer = Consumer(
            name="orders-api",
            template=Path("orders-api.j2"),
            format="yaml",
            secrets=(USED,),
            target=Plugin(kind="terraform", options={"stack": "application"}),
            rings={Ring.STABLE: ring},
        )
        secrets = (
            self._secret(DB, Plugin(kind="postgres_user", options=login), Strategy.ALTERNATING),
            self._secret(TOKEN, Plugin(kind="random_token"), Strategy.OVERLAPPING),
            self._secret(USED, Plugin(kind="random_token"), Strategy.OVERLAPPING),
        )
        return Manifest(
            environment=self.environment,
            order=1,
            rehearsal=self.rehearsal,
            sources=digest_of_sources(self.project),
            pins=Path("pins.json"),
            secrets={secret.name: secret for secret in secrets},
            consumers={consumer.name: consumer},
        )

    def _secret(self, name: str, credential: Plugin, strategy: Strategy) -> Secret:
        none = timedelta(0)
        return Secret(
            name=name,
            stored_as=f"{self.environment}/{name}",
            store=Plugin(kind="aws_secrets_manager"),
            credential=credential,
            strategy=strategy,
            schedule=HOURLY,
            bake=none,
            settle=none,
            patience=none,
            grace=none,
        )

    # keyturn's side

    @contextmanager
    def engine(self, journal: str = "journal") -> Iterator[Engine]:
        """A run of its own: what a fresh process would see, with this journal."""
        with Journal(self.project / f"{journal}.sqlite3") as opened:
            yield Engine(self.project, self.manifest, self.plugins, opened)

    def arn(self, name: str = DB) -> str:
        arn: str = self.client.describe_secret(SecretId=self.manifest.secrets[name].stored_as)["ARN"]
        return arn

    # Secrets Manager's side

    def ask(self, name: str = DB) -> str:
        """What RotateSecret does before the function is called; returns the token."""
        token = str(uuid.uuid4())
        self.client.rotate_secret(SecretId=self.arn(name), ClientRequestToken=token, RotationLambdaARN=FUNCTION)
        return token

    def event(self, step: str, token: str, name: str = DB) -> dict[str, str]:
        return {"Step": step, "SecretId": self.arn(name), "ClientRequestToken": token}

    def take(self, step: str, token: str, name: str = DB, journal: str = "journal") -> str:
        with self.engine(journal) as engine:
            done: str = take(engine, Step.read(self.event(step, token, name)))["done"]
            return done

    def rotated(self, name: str = DB) -> str:
        token = self.ask(name)
        for step in STEPS:
            self.take(step, token, name)
        return token

    # Looking

    def view(self, name: str = DB) -> Any:
        with self.engine() as engine:
            return engine.observer.stored([self.manifest.secrets[name]], fresh=True)[name]

    def labels(self, name: str = DB) -> dict[str, str]:
        versions = self.client.describe_secret(SecretId=self.arn(name))["VersionIdsToStages"]
        return {label: version for version, labels in versions.items() for label in labels}

    def accepted(self, version: Version | None) -> bool:
        """Whether the database lets in who has this version's value."""
        assert version is not None
        text = self.client.get_secret_value(SecretId=self.arn(), VersionId=version.version_id)["SecretString"]
        with self.engine() as engine:
            kind = engine.plugins.kind(self.manifest.secrets[DB])
            answer = kind.check(Credential(DB, version.generation or 0, SecretValue(text)))
        return answer is Acceptance.ACCEPTED

    def users(self) -> list[str]:
        """Those that rotations made in the database's server."""
        rows = self.database.run("SELECT usename FROM pg_user ORDER BY usename")
        return [row[0] for row in rows if row[0].startswith(f"{self.database.name}_app")]
