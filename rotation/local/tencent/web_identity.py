"""Jobs that become a role by their own identity: OIDC providers and roles of CAM, and AssumeRoleWithWebIdentity of STS.

The token's signature is checked with the provider's declared public keys, and what it says against the provider and the
role's trust. Source: the SDK's cam.v20190116, and the API documentation of AssumeRoleWithWebIdentity
(https://www.tencentcloud.com/document/product/1150/49454), for the SDK's sts is a package of its own.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Annotated, Any, Literal

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, Field

from rotation.local.tencent.cam import SESSION_NAME, credentials_of
from rotation.local.tencent.cloud import Cloud
from rotation.local.tencent.records import Table
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.wire import ApiError, Call

_ROLE_ARN = re.compile(r"qcs::cam::uin/(?P<account>\d+):roleName/(?P<name>[A-Za-z0-9+=,.@_-]{1,128})")
_FIRST_ROLE = 4611686018427397919


class Provider(BaseModel):
    """Who signs tokens. ``keys`` is its JWKS, ``client_ids`` are the audiences."""

    url: str
    client_ids: list[str]
    keys: str


class Role(BaseModel):
    """A role, and in ``statements`` who may assume it."""

    identifier: str
    statements: list[dict[str, Any]]
    longest: int


class CreateOidcConfig(Parameters):
    IdentityUrl: Annotated[str, Field(pattern=r"^https://")]
    ClientId: Annotated[list[str], Field(min_length=1)]
    Name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    IdentityKey: str
    Description: str = ""
    AutoRotateKey: Literal[0, 1] = 0


class CreateRole(Parameters):
    RoleName: Annotated[str, Field(pattern=r"^[A-Za-z0-9+=,.@_-]{1,128}$")]
    PolicyDocument: str
    Description: str = ""
    ConsoleLogin: Literal[0, 1] = 0
    SessionDuration: Annotated[int, Field(ge=0, le=43200)] = 7200


class AssumeRoleWithWebIdentity(Parameters):
    ProviderId: str
    WebIdentityToken: str = Field(repr=False)
    RoleArn: str
    RoleSessionName: Annotated[str, Field(pattern=SESSION_NAME)]
    DurationSeconds: Annotated[int, Field(ge=1, le=43200)] = 7200


class Trusts(Service):
    """The part of CAM that says who may become which role."""

    SERVICE = "cam"
    VERSION = "2019-01-16"
    REGIONAL = False

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.providers: Table[Provider] = Table(cloud.records, "cam.providers", Provider)
        self.roles: Table[Role] = Table(cloud.records, "cam.roles", Role)

    @action()
    def create_oidc_config(self, _call: Call, asked: CreateOidcConfig) -> Fields:
        if self.providers.get(asked.Name):
            raise ApiError("InvalidParameter.IdentityNameInUse", f"The provider `{asked.Name}` exists.")
        try:
            keys = base64.b64decode(asked.IdentityKey, validate=True).decode()
            KeySet.import_key_set(json.loads(keys))
        except (ValueError, LookupError, TypeError, JoseError):
            raise ApiError("InvalidParameterValue.IdentityKeyError", "`IdentityKey` is no JWKS in base64.") from None
        self.providers.put(asked.Name, Provider(url=asked.IdentityUrl, client_ids=asked.ClientId, keys=keys))
        return {}

    @action()
    def create_role(self, _call: Call, asked: CreateRole) -> Fields:
        if self.roles.get(asked.RoleName):
            raise ApiError("InvalidParameter.RoleNameInUse", f"The role `{asked.RoleName}` exists.")
        try:
            statements = json.loads(asked.PolicyDocument)["statement"]
        except (ValueError, LookupError, TypeError):
            raise ApiError("InvalidParameter.ParamError", "`PolicyDocument` has no statements.") from None
        identifier = str(_FIRST_ROLE + len(self.roles.all()))
        self.roles.put(
            asked.RoleName, Role(identifier=identifier, statements=statements, longest=asked.SessionDuration)
        )
        return {"RoleId": identifier}


class WebIdentities(Service):
    """The part of STS that needs no signature."""

    SERVICE = "sts"
    VERSION = "2018-08-13"

    @action(signed=False)
    def assume_role_with_web_identity(self, _call: Call, asked: AssumeRoleWithWebIdentity) -> Fields:
        trusts = self.cloud.service(Trusts)
        provider = trusts.providers.get(asked.ProviderId)
        if provider is None:
            raise ApiError("InvalidParameter.ParamError", f"The provider `{asked.ProviderId}` does not exist.")
        claims = _claims(asked.WebIdentityToken, provider, self.cloud.clock.now())
        arn = _ROLE_ARN.fullmatch(asked.RoleArn)
        account = self.cloud.identities.account
        role = trusts.roles.get(arn["name"]) if arn and arn["account"] == account else None
        if role is None:
            raise ApiError("InternalError.GetRoleError", "The role does not exist.")
        principal = f"qcs::cam::uin/{account}:oidc-provider/{asked.ProviderId}"
        if not any(_lets(statement, principal, claims) for statement in role.statements):
            raise ApiError("UnauthorizedOperation", "The role does not trust who bears this token.")
        if asked.DurationSeconds > role.longest:
            raise ApiError("InvalidParameter.OverTimeError", f"The role is had for {role.longest} s at most.")
        session = f"{asked.RoleArn}:{asked.RoleSessionName}"
        return credentials_of(self.cloud.identities.assume(session, role.identifier, asked.DurationSeconds))


def _claims(text: str, provider: Provider, now: float) -> dict[str, Any]:
    """What a token says that this provider signed, for one of its audiences, and that has not ended."""
    registry = jwt.JWTClaimsRegistry(
        now=int(now),
        iss={"essential": True, "value": provider.url},
        aud={"essential": True, "values": provider.client_ids},
        sub={"essential": True},
        exp={"essential": True},
    )
    try:
        token = jwt.decode(text, KeySet.import_key_set(json.loads(provider.keys)), algorithms=["RS256", "ES256"])
        registry.validate(token.claims)
    except (JoseError, ValueError) as error:
        said = f"The token is not good: {type(error).__name__}."
        raise ApiError("InvalidParameter.WebIdentityTokenError", said) from None
    return token.claims


def _lets(statement: dict[str, Any], principal: str, claims: dict[str, Any]) -> bool:
    """Whether a statement of a role's trust lets the bearer of these claims assume it. A condition that is not known
    here lets nobody."""
    conditions = statement.get("condition", {})
    return (
        statement["effect"] == "allow"
        and "name/sts:AssumeRoleWithWebIdentity" in statement["action"]
        and principal in statement["principal"].get("federated", ())
        and conditions.keys() <= {"string_equal"}
        and all(_has(claims, name, wanted) for name, wanted in conditions.get("string_equal", {}).items())
    )


def _has(claims: dict[str, Any], name: str, wanted: list[str]) -> bool:
    said = claims.get(name.removeprefix("oidc:"), [])
    return not set(wanted).isdisjoint([said] if isinstance(said, str) else said)
