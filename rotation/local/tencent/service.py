"""What a service of the emulated cloud is made of: one class per module, one method per action.

::

    class PutSecretValue(Parameters):
        SecretName: SecretName
        VersionId: VersionId

    class Ssm(Service):
        SERVICE = "ssm"
        VERSION = "2019-09-23"

        @action(rate=100)
        def put_secret_value(self, call: Call, asked: PutSecretValue) -> Fields: ...

The method's name is the action's (``PutSecretValue``); the model of its last argument says which parameters there are.
Nothing lists the services: each class that derives from :class:`Service` in a module of this package is one, and
several classes may share a SERVICE.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_pascal

from rotation.local.tencent.wire import ApiError, Call

if TYPE_CHECKING:
    from rotation.local.tencent.cloud import Cloud

Fields = Mapping[str, Any]
DEFAULT_RATE = 20  # requests a second: what the documentation says of most actions


class Parameters(BaseModel):
    """What an action may be given. Names and types are the wire's; nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Tag(Parameters):
    """A tag as most services take it."""

    TagKey: str
    TagValue: str


Asked = TypeVar("Asked", bound=Parameters)
Method = TypeVar("Method", bound=Callable[..., Fields])


def action(rate: int = DEFAULT_RATE, *, transaction: bool = True, signed: bool = True) -> Callable[[Method], Method]:
    """Mark a method as an action that may be asked for ``rate`` times a second.

    It runs in a transaction, so that it is applied whole or not at all; without one it makes its own. One that is not
    ``signed`` is for callers who have no key.
    """

    def mark(method: Method) -> Method:
        method._action = (rate, transaction, signed)  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True, slots=True)
class Action:
    """An action of one service. ``name`` is as on the wire."""

    name: str
    rate: int
    transaction: bool
    signed: bool
    parameters: type[Parameters]
    method: Callable[[Call, Any], Fields]

    def run(self, call: Call) -> Fields:
        """The fields of the answer. Raises :class:`ApiError` for a refusal."""
        return self.method(call, parse(self.parameters, call.body))


class Service:
    """A service of the cloud, or a part of one."""

    SERVICE: ClassVar[str]
    VERSION: ClassVar[str]
    REGIONAL: ClassVar[bool] = True

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._second = 0

    def new_second(self) -> bool:
        """Whether a second has begun since it was last asked: for what is due by the second, and slow to look for."""
        before, self._second = self._second, int(self.cloud.clock.now())
        return self._second != before

    def tick(self) -> None:
        """Do what is due by now. It is called before each call, when the clock was moved, and now and then."""

    def close(self) -> None:
        """End what it started, at the end of the cloud."""

    def actions(self) -> Iterator[Action]:
        for name in dir(type(self)):
            rate, transaction, signed = getattr(getattr(type(self), name), "_action", (0, False, True))
            if rate:
                method = getattr(self, name)
                hints = typing.get_type_hints(method)
                model = next(hint for hint in hints.values() if _is_model(hint))
                yield Action(_on_the_wire(name), rate, transaction, signed, model, method)


def _on_the_wire(name: str) -> str:
    """An action's name by its method's: abbreviations are in capitals."""
    return to_pascal(name).replace("Oidc", "OIDC")


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Parameters)


def found() -> list[type[Service]]:
    """All services, of all modules of this package."""
    package = importlib.import_module(__package__ or "")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    return Service.__subclasses__()


_PROBLEMS = {
    "json_invalid": ("InvalidRequest", "is no JSON"),
    "model_type": ("InvalidParameter", "is no JSON object"),
    "extra_forbidden": ("UnknownParameter", "is not known"),
    "missing": ("MissingParameter", "is missing"),
}


def parse(model: type[Asked], body: bytes) -> Asked:
    """The parameters as their model. Raises :class:`ApiError` with the code of the first problem, and no value."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        wrong_type = first["type"].endswith("_type")
        other = ("InvalidParameter" if wrong_type else "InvalidParameterValue", f"is not valid: {first['msg']}")
        code, what = _PROBLEMS.get(first["type"], other)
        raise ApiError(code, f"The parameter `{where}` {what}.") from None
