"""Secrets Manager as AWS documents it, on top of moto 5.2.5, which differs where a rotation depends on it.

Each method names the page of the Secrets Manager API reference that it follows. Error texts are AWS's own where they
are known; none quotes a value. Staging labels: :mod:`rotation.local.aws.staging_labels`.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from moto.secretsmanager import urls
from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    OperationNotPermittedOnReplica,
    ResourceExistsException,
    SecretsManagerClientError,
    ValidationException,
)
from moto.secretsmanager.models import (
    MAX_RESULTS_DEFAULT,
    FakeSecret,
    ReplicaSecret,
    SecretsManagerBackend,
    _matches,
    secretsmanager_backends,
)
from moto.secretsmanager.responses import SecretsManagerResponse

from rotation.local.aws.staging_labels import (
    CURRENT,
    PENDING,
    Versions,
    attach,
    deprecated,
    holder,
    labelled,
    move,
)

MAX_VALUE_BYTES = 65_536
MAX_LABELS_PER_CALL = 20
_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_DELETED = "You can't perform this operation on the secret because it was marked for deletion."
Item = TypeVar("Item")


def install() -> None:
    """Make moto's server use this Secrets Manager. To be called before its first request."""
    secretsmanager_backends.backend = DocumentedSecretsManager


def not_found(what: str = "") -> SecretsManagerClientError:
    """Of a secret, or of a secret's value: ``what`` is "VersionId: …" or "staging label: …"."""
    suffix = f" value for {what}" if what else "."
    error = SecretsManagerClientError(
        "ResourceNotFoundException", f"Secrets Manager can't find the specified secret{suffix}"
    )
    error.code = 400  # moto answers 404; every client error of Secrets Manager is a 400
    return error


class Secret(FakeSecret):
    """A secret whose deprecated versions are not listed."""

    def _form_version_ids_to_stages(self) -> dict[str, Any]:
        return labelled(self.versions)

    def short(self, version_id: str | None = None, *, stages: bool = False) -> str:
        """The JSON answer of the calls that change a secret."""
        answer: dict[str, Any] = {"ARN": self.arn, "Name": self.name}
        if version_id:
            answer["VersionId"] = version_id
        if version_id and stages:
            answer["VersionStages"] = sorted(self.versions[version_id]["version_stages"])
        return json.dumps(answer)

    def touch(self) -> None:
        """Note a change of value or label, and drop what AWS drops."""
        self.last_changed_date = int(time.time())
        self.set_default_version_id(holder(self.versions, CURRENT))
        for version_id in deprecated(self.versions, time.time()):
            del self.versions[version_id]


class DocumentedSecretsManager(SecretsManagerBackend):
    """Secrets Manager of one account and region."""

    @property
    def _url_module(self) -> Any:
        paths = dict.fromkeys(urls.url_paths, DocumentedResponse.dispatch)
        return SimpleNamespace(url_bases=urls.url_bases, url_paths=paths)

    def create_secret(  # noqa: PLR0913, PLR0917 - moto's own signature
        self,
        name: str,
        secret_string: str | None,
        secret_binary: str | None,
        description: str | None,
        tags: list[dict[str, str]] | None,
        kms_key_id: str | None,
        client_request_token: str | None,
        replica_regions: list[dict[str, str]],
        force_overwrite: bool,
    ) -> str:
        """CreateSecret: without a value there is no version; the same token and value again changes nothing."""
        value = _value(secret_string, secret_binary)
        token = self._from_client_request_token(client_request_token)
        if existing := dict.get(self.secrets, name):
            return _recreated(existing, token, value)
        if not _NAME.fullmatch(name):
            allowed = "alphanumeric characters, or any of the following: -/_+=.@!"
            raise ValidationException(f"Invalid name. Must be a valid name containing {allowed}")
        now = int(time.time())
        secret = Secret(
            self.account_id,
            self.region_name,
            name,
            secret_version={},
            version_id=token,
            description=description,
            tags=tags,
            kms_key_id=kms_key_id,
            last_changed_date=now,
            created_date=now,
            replica_regions=replica_regions,
            force_overwrite=force_overwrite,
        )
        self.secrets[name] = secret
        if not value:
            return secret.short()
        _add_version(secret, token, value, [CURRENT])
        return secret.short(token)

    def put_secret_value(
        self,
        secret_id: str,
        secret_string: str | None,
        secret_binary: str | None,
        client_request_token: str | None,
        version_stages: list[str],
    ) -> str:
        """PutSecretValue: put if absent. A token that is in use with the same value leaves everything as it is.

        The first version of a secret gets AWSCURRENT whatever labels the request names.
        """
        value = _value(secret_string, secret_binary)
        if value is None:
            raise InvalidRequestException("You must provide either SecretString or SecretBinary.")
        if len(version_stages) > MAX_LABELS_PER_CALL:
            raise _too_long("versionStages", MAX_LABELS_PER_CALL)
        token = self._from_client_request_token(client_request_token)
        secret = self._writable(secret_id)
        _put(secret, token, value, version_stages if secret.versions else [*version_stages, CURRENT])
        return secret.short(token, stages=True)

    def update_secret(
        self,
        secret_id: str,
        secret_string: str | None = None,
        secret_binary: str | None = None,
        client_request_token: str | None = None,
        kms_key_id: str | None = None,
        description: str | None = None,
    ) -> str:
        """UpdateSecret: a value makes a new version that gets AWSCURRENT."""
        value = _value(secret_string, secret_binary)
        token = self._from_client_request_token(client_request_token)
        secret = self._writable(secret_id)
        if value:
            _put(secret, token, value, [CURRENT])
        secret.description = secret.description if description is None else description
        secret.kms_key_id = kms_key_id or secret.kms_key_id
        secret.touch()
        return secret.short(token if value else None)

    def update_secret_version_stage(
        self, secret_id: str, version_stage: str, remove_from_version_id: str | None, move_to_version_id: str | None
    ) -> tuple[str, str]:
        """UpdateSecretVersionStage: compare and set."""
        secret = self._writable(secret_id)
        move(secret.versions, version_stage, remove_from_version_id, move_to_version_id)
        secret.touch()
        return secret.arn, secret.name

    def get_secret_value(self, secret_id: str, version_id: str | None, version_stage: str | None) -> dict[str, Any]:
        """GetSecretValue: by id, by label, by both if they name the same version, else AWSCURRENT."""
        secret = self._found(secret_id)
        if secret.is_deleted():
            raise InvalidRequestException(_DELETED)
        label = version_stage or CURRENT
        wanted = version_id or holder(secret.versions, label)
        version = secret.versions.get(wanted or "")
        if version is None or _value_of(version) is None:
            raise not_found(f"VersionId: {version_id}" if version_id else f"staging label: {label}")
        if version_id and version_stage and version_stage not in version["version_stages"]:
            raise InvalidRequestException(
                "You provided a VersionStage that is not associated to the provided VersionId."
            )
        key, value = _value_of(version) or ("", "")
        return {
            "ARN": secret.arn,
            "Name": secret.name,
            "VersionId": wanted,
            "VersionStages": sorted(version["version_stages"]),
            "CreatedDate": version["createdate"],
            "SecretString" if key == "secret_string" else "SecretBinary": value,
        }

    def describe_secret(self, secret_id: str) -> FakeSecret | ReplicaSecret:
        """DescribeSecret: also of a secret that is marked for deletion."""
        return self._found(secret_id)

    def list_versions(
        self, secret_id: str, include_deprecated: bool, max_results: int | None, next_token: str | None
    ) -> dict[str, Any]:
        """ListSecretVersionIds: only versions with a value, and deprecated ones only on demand."""
        secret = self._found(secret_id)
        versions = [
            version
            for version in secret.versions.values()
            if _value_of(version) is not None and (version["version_stages"] or include_deprecated)
        ]
        page, following = _page(versions, max_results, next_token)
        answer: dict[str, Any] = {
            "ARN": secret.arn,
            "Name": secret.name,
            "Versions": [_listed(v, secret) for v in page],
        }
        return answer | ({"NextToken": following} if following else {})

    def list_secrets(
        self,
        filters: list[dict[str, Any]],
        max_results: int | None = MAX_RESULTS_DEFAULT,
        next_token: str | None = None,
        include_planned_deletion: bool = False,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """ListSecrets: at most 100 a page, with the labelled versions of each secret."""
        found = [
            secret
            for secret in self.secrets.values()
            if (include_planned_deletion or not secret.is_deleted()) and _matches(secret, filters)
        ]
        page, following = _page(found, max_results, next_token)
        return [secret.to_dict() for secret in page], following

    def rotate_secret(
        self,
        secret_id: str,
        client_request_token: str | None = None,
        rotation_lambda_arn: str | None = None,
        rotation_rules: dict[str, Any] | None = None,
        rotate_immediately: bool = True,
    ) -> str:
        """RotateSecret: makes the pending version, without a value, that the function's four steps are to fill.

        The function itself is not run here: nothing runs functions. A version that is pending and not current is a
        rotation in progress, unless it is of the same token. Without ``rotate_immediately`` AWS makes a pending version
        only for a test, and removes it again.
        """
        secret = self._writable(secret_id)
        function = rotation_lambda_arn or secret.rotation_lambda_arn
        if not function:
            raise InvalidRequestException("No Lambda rotation function ARN is associated with this secret.")
        token = self._from_client_request_token(client_request_token)
        pending = holder(secret.versions, PENDING)
        if pending not in (None, token, holder(secret.versions, CURRENT)):
            raise InvalidRequestException("A previous rotation isn't complete. That rotation will be reattempted.")
        secret.rotation_requested = secret.rotation_enabled = True
        secret.rotation_lambda_arn = function
        secret.auto_rotate_after_days = (rotation_rules or {}).get(
            "AutomaticallyAfterDays", secret.auto_rotate_after_days
        )
        if rotate_immediately and secret.versions and token not in secret.versions:
            secret.versions[token] = {"version_id": token, "version_stages": [], "createdate": int(time.time())}
            attach(secret.versions, token, [PENDING])
            secret.touch()
        return secret.short(token)

    def _found(self, secret_id: str) -> FakeSecret | ReplicaSecret:
        """A secret by its name, its ARN, or its ARN without the random suffix."""
        name = secret_id.split(":", 6)[-1] if secret_id.startswith("arn:") else secret_id
        for candidate in (name, name[:-7]):
            secret = dict.get(self.secrets, candidate)
            if secret and secret_id in (secret.name, secret.arn, secret.arn[:-7]):
                return secret
        replica = dict.get(self.secrets, secret_id)
        if replica is None:
            raise not_found()
        return replica

    def _writable(self, secret_id: str) -> Secret:
        secret = self._found(secret_id)
        if not isinstance(secret, Secret):
            raise OperationNotPermittedOnReplica
        if secret.is_deleted():
            raise InvalidRequestException(_DELETED)
        return secret


class DocumentedResponse(SecretsManagerResponse):
    """Hands the request's parameters to the backend."""

    def list_secret_version_ids(self) -> str:
        backend = cast(DocumentedSecretsManager, self.backend)
        answer = backend.list_versions(
            self._get_param("SecretId", if_none=""),
            self._get_bool_param("IncludeDeprecated", False),
            self._get_int_param("MaxResults"),
            self._get_param("NextToken"),
        )
        return json.dumps(answer)


# The key of moto's record of a version, and the value: secret_string, or secret_binary as base64.
_Value = tuple[str, str]


def _value(secret_string: str | None, secret_binary: str | None) -> _Value | None:
    """The value of a request. Raises ValidationException for more than 65,536 bytes."""
    if secret_string is not None and secret_binary is not None:
        raise InvalidParameterException("You can't specify both SecretString and SecretBinary.")
    if secret_string is not None:
        size, value = len(secret_string.encode()), ("secret_string", secret_string)
    elif secret_binary is not None:
        size, value = len(base64.b64decode(secret_binary)), ("secret_binary", secret_binary)
    else:
        return None
    if size > MAX_VALUE_BYTES:
        raise _too_long("secretString" if secret_string is not None else "secretBinary", MAX_VALUE_BYTES)
    return value


def _too_long(parameter: str, limit: int, what: str = "length") -> ValidationException:
    return ValidationException(
        f"1 validation error detected: Value at '{parameter}' failed to satisfy constraint: "
        f"Member must have {what} less than or equal to {limit}"
    )


def _value_of(version: dict[str, Any]) -> _Value | None:
    for key in ("secret_string", "secret_binary"):
        if key in version:
            return key, version[key]
    return None


def _recreated(existing: FakeSecret | ReplicaSecret, token: str, value: _Value | None) -> str:
    if not isinstance(existing, Secret):
        raise OperationNotPermittedOnReplica
    if existing.is_deleted():
        raise InvalidRequestException(
            "You can't create this secret because a secret with this name is already scheduled for deletion."
        )
    if value and token in existing.versions and _value_of(existing.versions[token]) == value:
        return existing.short(token)
    raise ResourceExistsException(f"The operation failed because the secret {existing.name} already exists.")


def _put(secret: Secret, token: str, value: _Value, labels: Sequence[str]) -> None:
    present = secret.versions.get(token)
    held = _value_of(present) if present else None
    if held == value:
        return
    if held is not None:
        raise ResourceExistsException(
            f"You can't use ClientRequestToken {token} because that value is already in use for a version of secret "
            f"{secret.arn}."
        )
    _add_version(secret, token, value, labels)


def _add_version(secret: Secret, token: str, value: _Value, labels: Sequence[str]) -> None:
    """A new version, or the value of the placeholder that RotateSecret made."""
    key, text = value
    draft: Versions = {
        name: version | {"version_stages": [*version["version_stages"]]} for name, version in secret.versions.items()
    }
    version = draft.setdefault(token, {"version_id": token, "version_stages": []})
    version |= {"createdate": int(time.time()), key: text}
    former = holder(draft, CURRENT)
    attach(draft, token, labels)
    if former and former != token and CURRENT in labels and PENDING in draft[former]["version_stages"]:
        draft[former]["version_stages"].remove(PENDING)  # seen on AWS: a pending label does not outlive being current
    secret.versions = draft
    secret.touch()


def _page(items: Sequence[Item], max_results: int | None, next_token: str | None) -> tuple[Sequence[Item], str | None]:
    size = max_results or MAX_RESULTS_DEFAULT
    if not 1 <= size <= MAX_RESULTS_DEFAULT:
        raise _too_long("maxResults", MAX_RESULTS_DEFAULT, "value")
    if next_token and not next_token.isdecimal():
        raise SecretsManagerClientError("InvalidNextTokenException", "The NextToken value is invalid.")
    start = int(next_token or 0)
    following = start + size
    return items[start:following], str(following) if following < len(items) else None


def _listed(version: dict[str, Any], secret: FakeSecret | ReplicaSecret) -> dict[str, Any]:
    key = getattr(secret, "kms_key_id", None) or "DefaultEncryptionKey"
    labels = {"VersionStages": sorted(version["version_stages"])} if version["version_stages"] else {}
    return {"VersionId": version["version_id"], "CreatedDate": version["createdate"], "KmsKeyIds": [key]} | labels
