"""The embedded environment below <project>/.keyturn/local: start it, stop it, say how it is.

* The AWS API, PostgreSQL, and the sample application in its rings, each a :class:`~rotation.local.service.Service`.
  The environment ``local`` is made of them; each other one (rotation/local/embedded) adds servers and an application of
  its own, from when it is first asked for.
* Ports are chosen once and kept in ``endpoints.json``, for the stacks declare them: a restart keeps them and the data.
* :func:`up` may be run at any time: it starts what does not run, and provisions what is not there.
* One :func:`up` or :func:`down` at a time: a lock file beside the folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rotation.errors import KeyturnError, LocalError
from rotation.file_lock import held
from rotation.files import write_atomically
from rotation.local.embedded import FOLDER, Embedded, Place, Say, embedded, names
from rotation.local.embedded.local import REGION, Local
from rotation.local.ports import HOST, free_ports
from rotation.local.service import Service, database_service, port_of, python_service
from rotation.model import Ring

APPLICATION = "orders-api"


class _Address(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int


class Endpoints(BaseModel):
    """Where the servers listen: ``aws`` and ``applications``, those of ``local``, are URLs. ``others`` are what the
    other environments have of their own, once they were asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aws: str
    postgresql: _Address
    applications: dict[Ring, str]
    others: dict[str, Place] = {}

    @property
    def places(self) -> Mapping[str, Place]:
        """By environment."""
        return {Local.name: Place(server=self.aws, applications=self.applications), **self.others}


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """``address`` is a URL or host:port; ``pid`` is None where it does not run; ``ready`` where it answers."""

    name: str
    address: str
    pid: int | None
    ready: bool


def up(project: Path, say: Say, environment: str = Local.name) -> tuple[ServiceStatus, ...]:
    """Start what does not run, make the sample databases and keep their administrators' logins as secrets.

    What is not ``local``'s is started where its environment is this one, or was once. Raises :class:`LocalError` for a
    port that is taken, a server that does not start, a full disk.
    """
    with _alone(project), _local_errors():
        (project / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        endpoints = _load(project) or _choose(project)
        if environment in names() and environment not in endpoints.places:
            endpoints = _with(embedded(environment), project, endpoints)
        _start(_servers(project, endpoints), _environment(), say)
        for name, place in endpoints.places.items():
            embedded(name).provision(project, place, say)
        _start(_applications(project, endpoints), _environment() | _variables(project, endpoints), say)
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
            _remove(project / FOLDER)
            for name in names():  # what synth and rotations made of it is worthless without it
                _remove(project / f"stacks/pins/{name}.json")
                _remove(project / f"stacks/config/rendered/{name}")
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
    """What clients need to talk to the embedded servers: AWS's (SDKs, Terraform, the CLI), and those of others.

    Raises :class:`LocalError` where the environment was never started here.
    """
    endpoints = _load(project)
    if endpoints is None:
        raise LocalError("the embedded environment has not been started in this project", "Run `keyturn local up`.")
    return _variables(project, endpoints)


def place_of(project: Path, environment: str) -> Place:
    """Where the servers of one of the environments listen.

    Raises :class:`LocalError` where that environment was never started here.
    """
    endpoints = _load(project)
    if endpoints is None or environment not in endpoints.places:
        raise LocalError(
            f"{environment} has not been started in this project", f"Run `keyturn local up -e {environment}`."
        )
    return endpoints.places[environment]


def config_bucket(environment: str) -> str:
    """Where the configuration objects of one of the environments are."""
    return f"keyturn-{environment}-config"


def _variables(project: Path, endpoints: Endpoints) -> dict[str, str]:
    aws = {
        "AWS_ENDPOINT_URL": endpoints.aws,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    others = [embedded(name).variables(project, place) for name, place in endpoints.places.items()]
    return {name: value for variables in (aws, *others) for name, value in variables.items()}


# ── endpoints ──


def _load(project: Path) -> Endpoints | None:
    path = project / FOLDER / "endpoints.json"
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
    aws, postgresql, *applications = free_ports(2 + len(Ring))
    endpoints = Endpoints(
        aws=f"http://{HOST}:{aws}",
        postgresql=_Address(host=HOST, port=postgresql),
        applications={ring: f"http://{HOST}:{port}" for ring, port in zip(Ring, applications, strict=True)},
    )
    return _kept(project, endpoints)


def _with(other: Embedded, project: Path, endpoints: Endpoints) -> Endpoints:
    """With addresses for what another environment has of its own."""
    server, database, *ports = free_ports(2 + len(Ring) * (2 if other.has_https else 1))
    own: dict[str, Any] = {"database": "mysql", "database_server": f"{HOST}:{database}"} if other.has_mysql else {}
    place = Place(
        server=f"http://{HOST}:{server}",
        applications={ring: f"http://{HOST}:{port}" for ring, port in zip(Ring, ports, strict=False)},
        https={ring: f"{HOST}:{port}" for ring, port in zip(Ring, ports[len(Ring) :], strict=False)},
        **own,
    )
    return _kept(project, endpoints.model_copy(update={"others": {**endpoints.others, other.name: place}}))


def _kept(project: Path, endpoints: Endpoints) -> Endpoints:
    text = endpoints.model_dump_json(indent=1, exclude_defaults=True)
    write_atomically(project / FOLDER / "endpoints.json", f"{text}\n")
    return endpoints


# ── services ──


def _services(project: Path, endpoints: Endpoints) -> tuple[Service, ...]:
    return (*_servers(project, endpoints), *_applications(project, endpoints))


def _servers(project: Path, endpoints: Endpoints) -> Iterator[Service]:
    from rotation.local.postgresql import await_ready

    folder = (project / FOLDER).absolute()
    yield python_service(folder, "aws", "aws", endpoints.aws, "/keyturn/ready", "--folder", str(folder / "aws"))
    yield database_service(folder, "postgresql", endpoints.postgresql.port, await_ready)
    for name, place in endpoints.places.items():
        yield from embedded(name).services(folder, place)


def _applications(project: Path, endpoints: Endpoints) -> Iterator[Service]:
    for name, place in endpoints.places.items():
        for ring in place.applications:
            yield _application(project.absolute(), embedded(name), ring, place)


def _application_name(environment: str, ring: Ring) -> str:
    """Of one ring's process, and of its log."""
    return f"{APPLICATION}-{ring}" if environment == Local.name else f"{environment}-{APPLICATION}-{ring}"


def _application(project: Path, of: Embedded, ring: Ring, place: Place) -> Service:
    folder, name = project / FOLDER, _application_name(of.name, ring)
    config = f"s3://{config_bucket(of.name)}/{APPLICATION}/{ring}.yaml"
    options = ["--name", APPLICATION, "--ring", str(ring), "--config", config]
    options += ["--log", str(folder / "logs" / f"{name}.log"), *of.reads(project, place)]
    options += ["--database", place.database]
    if ring in place.https:
        options += ["--https-port", str(port_of(place.https[ring]))]
    return python_service(folder, name, "application", place.applications[ring], "/health", *options)


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
