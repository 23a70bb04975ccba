"""Logins of database users: what their values say, and how such a value is read."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rotation.errors import TargetError
from rotation.options import first_problem
from rotation.secret_value import SecretValue


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where."""

    host: str
    port: int
    username: str
    password: SecretValue
    dbname: str

    def to_value(self, engine: str) -> SecretValue:
        """The JSON that AWS's own rotation functions use: engine, host, port, username, password, dbname."""
        place = {"engine": engine, "host": self.host, "port": self.port}
        return SecretValue(
            json.dumps({**place, "username": self.username, "password": self.password.reveal(), "dbname": self.dbname})
        )

    def to_tencent_value(self) -> SecretValue:
        """The JSON that Tencent Cloud's consumer SDK reads (UserName, Password), with host, port and dbname beside."""
        login = {"UserName": self.username, "Password": self.password.reveal()}
        return SecretValue(json.dumps(login | {"host": self.host, "port": self.port, "dbname": self.dbname}))


class _Shape(BaseModel):
    """Of either cloud."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    username: str = Field(validation_alias=AliasChoices("username", "UserName"))
    password: str = Field(validation_alias=AliasChoices("password", "Password"))
    host: str | None = None
    port: int | None = None
    dbname: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What stands in for what a value leaves out."""

    host: str | None
    port: int
    dbname: str


def parse(value: SecretValue, whose: str, server: str, place: Place) -> Login:
    """Read a login on a ``server`` ("PostgreSQL") from its JSON.

    Raises :class:`TargetError` that names the field, never its content.
    """
    try:
        shape = _Shape.model_validate_json(value.reveal())
    except ValidationError as error:  # it holds the value: not chained
        where, what = first_problem(error)
        problem = f"{where or 'its JSON'}: {what}"
    else:
        address = shape.host or place.host
        if address is not None:
            password = SecretValue(shape.password)
            return Login(address, shape.port or place.port, shape.username, password, shape.dbname or place.dbname)
        problem = "host: missing, and not among the options either"
    raise TargetError(
        f"the value of {whose} is not a {server} login ({problem})",
        "Store it as JSON with host, port, username, password and dbname.",
    )
