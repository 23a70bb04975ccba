"""The embedded environment below <project>/.keyturn/local: start it, stop it, say how it is.

* The AWS API, PostgreSQL, and the sample application in its rings, each a :class:`~rotation.local.service.Service`.
  The environment ``local`` is made of them; ``local-vault``, from when it is first asked for, adds OpenBao and an
  application of its own.
* Ports are chosen once and kept in ``endpoints.json``, for the stacks declare them: a restart keeps them and the data.
* :func:`up` may be run at any time: it starts what does not run, and provisions what is not there.
* One :func:`up` or :func:`down` at a time: a lock file beside the folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import KeyturnError, LocalError
from rotation.file_lock import held
from rotation.files import write_atomically
from rotation.local.service import Service, answers_http
from rotation.model import Ring
from rotation.secret_value import SecretValue

Say = Callable[[str], None]

HOST = "127.0.0.1"
REGION = "us-east-1"
APPLICATION = "orders-api"
LOCAL, VAULT = "local", "local-vault"  # the environments that the servers make up
DATABASES = {LOCAL: "orders", VAULT: "orders_vault"}  # names of users begin with them
ADMINISTRATOR = "local/orders/db-admin"  # the secret with the database administrator's login
VAULT_ADMINISTRATOR = "orders/db-admin"  # the one in OpenBao
RUNNER_TOKEN = Path(".keyturn/local/openbao/runner-token")  # below the project
APPLICATION_TOKEN = Path(".keyturn/local/openbao/application-token")

_FOLDER = Path(".keyturn") / "local"
_SERVERS = ("aws", "postgresql", "openbao")  # without which the applications are not started
# What synth and rotations made of these environments, and what is worthless without them.
_FOLLOWERS = tuple(
    path
    for name in (LOCAL, VAULT)
    for path in (Path(f"stacks/pins/{name}.json"), Path(f"stacks/config/rendered/{name}"))
)


class _Address(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int


class VaultEndpoints(BaseModel):
    """Where the servers of ``local-vault`` alone listen, as URLs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    openbao: str
    applications: dict[Ring, str]


class Endpoints(BaseModel):
    """Where the servers listen: ``aws`` and ``applications`` are URLs. ``vault`` is there once it was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aws: str
    postgresql: _Address
    applications: dict[Ring, str]
    vault: VaultEndpoints | None = None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """``address`` is a URL or host:port; ``pid`` is None where it does not run; ``ready`` where it answers."""

    name: str
    address: str
    pid: int | None
    ready: bool


def up(project: Path, say: Say, environment: str = LOCAL) -> tuple[ServiceStatus, ...]:
    """Start what does not run, make the sample databases and keep their administrators' logins as secrets.

    ``local-vault`` is started where it is the ``environment``, or was once. Raises :class:`LocalError` for a port that
    is taken, a server that does not start, a full disk.
    """
    with _alone(project), _local_errors():
        folder = project / _FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        endpoints = _load(project) or _choose(project)
        if environment == VAULT and endpoints.vault is None:
            endpoints = _with_vault(project, endpoints)
        services = _services(project, endpoints)
        _start([service for service in services if service.name in _SERVERS], _environment(), say)
        _provision(folder / "postgresql", endpoints, say)
        if endpoints.vault is not None:
            _provision_vault(project, endpoints.vault, say)
        applications = [service for service in services if service.name not in _SERVERS]
        _start(applications, _environment() | _aws_variables(endpoints), say)
    return status(project)


def down(project: Path, say: Say, *, purge: bool = False) -> None:
    """Stop all, and keep the data; ``purge`` removes it, and the local pins and rendered files, which lead nowhere
    without it."""
    with _alone(project), _local_errors():
        endpoints = _load(project)
        services = _services(project, endpoints) if endpoints else ()
        with ThreadPoolExecutor(max_workers=len(services) or 1) as pool:
            for service, ran in zip(services, pool.map(Service.stop, services), strict=True):
                say(f"{service.name}: {'stopped' if ran else 'was not running'}")
        if purge:
            for path in (project / _FOLDER, *(project / follower for follower in _FOLLOWERS)):
                _remove(path)
            say("removed the local data")


def status(project: Path) -> tuple[ServiceStatus, ...]:
    """How each server is; empty where the environment was never started here."""
    endpoints = _load(project)
    if endpoints is None:
        return ()
    return tuple(
        ServiceStatus(service.name, f"{HOST}:{service.port}", service.pid, service.ready)
        for service in _services(project, endpoints)
    )


def environment_variables(project: Path) -> dict[str, str]:
    """What AWS clients (SDKs, Terraform, the CLI) need to talk to the local AWS API, and Vault's to find OpenBao.

    Raises :class:`LocalError` where the environment was never started here.
    """
    endpoints = _load(project)
    if endpoints is None:
        raise LocalError("the embedded environment has not been started in this project", "Run `keyturn local up`.")
    vault = {"VAULT_ADDR": endpoints.vault.openbao} if endpoints.vault else {}
    return _aws_variables(endpoints) | vault


def applications(project: Path, environment: str) -> dict[Ring, str]:
    """The addresses of the application's rings in one of the environments.

    Raises :class:`LocalError` where that environment was never started here.
    """
    endpoints = _load(project)
    place = endpoints.vault if endpoints is not None and environment == VAULT else endpoints
    if place is None:
        raise LocalError(
            f"{environment} has not been started in this project", f"Run `keyturn local up -e {environment}`."
        )
    return place.applications


def config_bucket(environment: str) -> str:
    """Where the configuration objects of one of the environments are."""
    return f"keyturn-{environment}-config"


def _aws_variables(endpoints: Endpoints) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoints.aws,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# ── endpoints ──


def _load(project: Path) -> Endpoints | None:
    path = project / _FOLDER / "endpoints.json"
    try:
        return Endpoints.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise LocalError(
            "endpoints.json of the embedded environment is not what `keyturn local up` wrote",
            "Remove .keyturn/local/endpoints.json: new ports are then chosen.",
        ) from error


def _choose(project: Path) -> Endpoints:
    aws, postgresql, *applications = _free_ports(2 + len(Ring))
    endpoints = Endpoints(
        aws=f"http://{HOST}:{aws}",
        postgresql=_Address(host=HOST, port=postgresql),
        applications={ring: f"http://{HOST}:{port}" for ring, port in zip(Ring, applications, strict=True)},
    )
    return _kept(project, endpoints)


def _with_vault(project: Path, endpoints: Endpoints) -> Endpoints:
    openbao, *applications = _free_ports(1 + len(Ring))
    vault = VaultEndpoints(
        openbao=f"http://{HOST}:{openbao}",
        applications={ring: f"http://{HOST}:{port}" for ring, port in zip(Ring, applications, strict=True)},
    )
    return _kept(project, endpoints.model_copy(update={"vault": vault}))


def _kept(project: Path, endpoints: Endpoints) -> Endpoints:
    text = endpoints.model_dump_json(indent=1, exclude_none=True)
    write_atomically(project / _FOLDER / "endpoints.json", f"{text}\n")
    return endpoints


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different: they are held together while they are chosen."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
        return [listener.getsockname()[1] for listener in listeners]


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


# ── services ──


def _services(project: Path, endpoints: Endpoints) -> tuple[Service, ...]:
    """The AWS API, PostgreSQL, and the application's rings, in this order; then what ``local-vault`` adds."""
    folder = (project / _FOLDER).absolute()
    return (
        _service(folder, "aws", "aws_api", endpoints.aws, "/keyturn/ready", "--folder", str(folder / "aws")),
        _postgresql(folder, endpoints.postgresql.port),
        *(_application(folder, LOCAL, ring, url) for ring, url in endpoints.applications.items()),
        *(_vault_services(project.absolute(), folder, endpoints.vault) if endpoints.vault else ()),
    )


def _vault_services(project: Path, folder: Path, endpoints: VaultEndpoints) -> Iterator[Service]:
    data = str(folder / "openbao")
    ready = "/v1/sys/health?standbycode=503"  # unsealed, it is first a standby, and then elects itself
    yield _service(folder, "openbao", "openbao", endpoints.openbao, ready, "--folder", data)
    reads = ("--vault", endpoints.openbao, "--vault-token", str(project / APPLICATION_TOKEN))
    for ring, url in endpoints.applications.items():
        yield _application(folder, VAULT, ring, url, *reads)


def _service(folder: Path, name: str, module: str, url: str, route: str, *options: str) -> Service:
    argv = (sys.executable, "-m", f"rotation.local.{module}", "--port", str(_port(url)), *options)
    return Service(name, argv, folder, _port(url), answers_http(url + route))


def _postgresql(folder: Path, port: int) -> Service:
    from rotation.local.postgresql import await_ready

    data = folder / "postgresql"

    def answers_its_superuser() -> bool:
        try:
            await_ready(data, seconds=0)
        except LocalError:
            return False
        return True

    argv = (sys.executable, "-m", "rotation.local.postgresql", "--port", str(port), "--folder", str(data))
    return Service("postgresql", argv, folder, port, answers_its_superuser)


def _application(folder: Path, environment: str, ring: Ring, url: str, *others: str) -> Service:
    name = f"{APPLICATION}-{ring}" if environment == LOCAL else f"{environment}-{APPLICATION}-{ring}"
    config = f"s3://{config_bucket(environment)}/{APPLICATION}/{ring}.yaml"
    log = folder / "logs" / f"{name}.log"
    options = ("--name", APPLICATION, "--ring", str(ring), "--config", config, "--log", str(log))
    return _service(folder, name, "application", url, "/health", *options, *others)


def _start(services: Iterable[Service], environment: dict[str, str], say: Say) -> None:
    with ThreadPoolExecutor() as pool:
        starting = {pool.submit(service.start, environment): service for service in services}
        for future in as_completed(starting):
            service = starting[future]
            how = "started" if future.result() else "runs already"
            say(f"{service.name}: {how} on {HOST}:{service.port}")


def _environment() -> dict[str, str]:
    """The servers' variables: where things are, and none of the user's credentials."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in names if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _provision(folder: Path, endpoints: Endpoints, say: Say) -> None:
    from rotation.local.postgresql import provision

    if _keep_secret(endpoints, ADMINISTRATOR, provision(folder)):
        say(f"the sample database is there, and its administrator's login in the secret {ADMINISTRATOR}")


def _provision_vault(project: Path, endpoints: VaultEndpoints, say: Say) -> None:
    from rotation.local import vault_environment
    from rotation.local.postgresql import Sample, provision

    database = DATABASES[VAULT]
    sample = Sample(database, owner=f"{database}_owner", administrator="keyturn_vault_admin")
    administrator = provision(project / _FOLDER / "postgresql", sample)
    vault_environment.provision(project, endpoints.openbao, administrator)
    say("what the stacks declare is in OpenBao, with a token for the runner and one for the application")


def _keep_secret(endpoints: Endpoints, name: str, value: SecretValue) -> bool:
    """Make ``value`` the current one of a secret in the local Secrets Manager; returns whether it was not."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "secretsmanager",
        endpoint_url=endpoints.aws,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # the local API asks for a key, and takes any
    )
    try:
        try:
            kept = SecretValue(client.get_secret_value(SecretId=name)["SecretString"])
        except client.exceptions.ResourceNotFoundException:
            kept = None
            client.create_secret(Name=name, SecretString=value.reveal())
        if kept not in (None, value):
            client.put_secret_value(SecretId=name, SecretString=value.reveal())
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"the local Secrets Manager refused {name}: {error}") from error
    return kept != value


# ── one at a time, and errors ──


def _alone(project: Path) -> AbstractContextManager[None]:
    busy = LocalError("another `keyturn local` has been at work here for 2 minutes", "Wait for it, then try again.")
    return held(project / ".keyturn" / "local.lock", patience=120, busy=busy)


@contextmanager
def _local_errors() -> Iterator[None]:
    """Whatever goes wrong here is a :class:`LocalError`; one that says its own remedy keeps it."""
    try:
        yield
    except LocalError:
        raise
    except KeyturnError as error:
        raise LocalError(str(error), error.remedy) from error
    except OSError as error:
        raise LocalError(
            f"the embedded environment cannot write to its folder: {error.strerror or error}",
            "Free some space on that disk and check the permissions of .keyturn, then run the command again.",
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
