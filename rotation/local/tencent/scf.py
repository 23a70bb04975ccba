"""Serverless Cloud Function (SCF) 2018-04-16: functions, their versions and aliases. Calls are in ``scf_calls``.

Changes take a while: a function is Creating, Updating or Publishing for some looks at it, and refuses to be changed.

Not known of the real service, or not emulated: for how long a change takes (here :attr:`Scf.looks` looks); what an
alias does when UpdateAlias leaves out RoutingConfig (here the routing goes); whether weights are shares of one (here
they are); rules of routing; whether an unchanged function can be published again (here it can); code from COS, layers,
images, networks. A Python runtime runs this machine's Python, whatever its number says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import uuid
import zipfile
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rotation.local.tencent.scf_records import (
    DEFAULT_ALIAS,
    LATEST,
    MOST_VERSIONS,
    RUNTIMES,
    Alias,
    AliasName,
    Code,
    DescriptionText,
    Function,
    FunctionName,
    Functions,
    OfFunction,
    Seconds,
    Settings,
    Trigger,
    Variables,
    Version,
    page,
    time_text,
)
from rotation.local.tencent.service import Fields, Parameters, Service, action
from rotation.local.tencent.wire import ApiError, Call

if TYPE_CHECKING:
    from rotation.local.tencent.cloud import Cloud

MOST_ZIP = 50_000_000  # bytes
_FAILED = {"Creating": "CreateFailed", "Updating": "UpdateFailed", "Publishing": "PublishFailed"}

HandlerName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*[A-Za-z0-9]\.[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]$")]


class Package(Parameters):
    ZipFile: str | None = None
    CosBucketName: str | None = None
    CosObjectName: str | None = None
    CosBucketRegion: str | None = None


class CreateFunction(Parameters):
    FunctionName: FunctionName
    Namespace: str = "default"
    Code: Package
    Handler: HandlerName
    Runtime: str
    Description: DescriptionText = ""
    MemorySize: int = 128
    Timeout: Seconds = 3
    Environment: Variables | None = None
    Role: str = ""
    ClsLogsetId: str = ""
    ClsTopicId: str = ""
    Type: str = "Event"
    CodeSource: str | None = None


class OfQualifier(OfFunction):
    Qualifier: str = LATEST


class GetFunction(OfQualifier):
    ShowCode: str = "FALSE"


class UpdateFunctionConfiguration(OfFunction):
    Description: DescriptionText | None = None
    MemorySize: int | None = None
    Timeout: Seconds | None = None
    Environment: Variables | None = None
    Role: str | None = None
    ClsLogsetId: str | None = None
    ClsTopicId: str | None = None
    Publish: str = "FALSE"


class UpdateFunctionCode(OfFunction):
    Handler: HandlerName | None = None
    ZipFile: str | None = None
    Code: Package | None = None
    CodeSource: str | None = None
    Publish: str = "FALSE"


class PublishVersion(OfFunction):
    Description: DescriptionText = ""


class ListVersionByFunction(OfFunction):
    Offset: Annotated[int, Field(ge=0)] = 0
    Limit: Annotated[int, Field(ge=1, le=100)] = 20
    Order: str = "ASC"
    OrderBy: str = "AddTime"


class VersionWeight(Parameters):
    Version: str
    Weight: Annotated[float, Field(ge=0, le=1, strict=False)]


class Routing(Parameters):
    AdditionalVersionWeights: Annotated[list[VersionWeight], Field(max_length=1, default_factory=list)]


class OfAlias(OfFunction):
    Name: AliasName


class WriteAlias(OfAlias):
    FunctionVersion: str
    RoutingConfig: Routing | None = None
    Description: DescriptionText = ""


class ListAliases(OfFunction):
    FunctionVersion: str | None = None
    Offset: str = "0"
    Limit: str = "20"


class DeleteFunction(OfFunction):
    Qualifier: str | None = None


class Scf(Service):
    """``looks`` is how often a change is seen under way before it is done. With ``fails`` changes fail in the end."""

    SERVICE = "scf"
    VERSION = "2018-04-16"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.functions = Functions(cloud.records, cloud.clock.now)
        self.looks = 1
        self.fails = False

    # Functions

    @action()
    def create_function(self, _: Call, asked: CreateFunction) -> Fields:
        if self.functions.find(asked.FunctionName, asked.Namespace):
            raise ApiError("ResourceInUse.Function", f"The function `{asked.FunctionName}` exists already.")
        if asked.Runtime not in RUNTIMES or asked.Type != "Event":
            raise ApiError("InvalidParameterValue.Runtime", "The runtime or type is not there, or not emulated.")
        now = self.cloud.clock.now()
        settings = Settings(
            handler=asked.Handler,
            runtime=asked.Runtime,
            description=asked.Description,
            timeout=asked.Timeout,
            memory=_memory(asked.MemorySize),
            role=asked.Role,
            logset=asked.ClsLogsetId,
            topic=asked.ClsTopicId,
            variables=asked.Environment.checked() if asked.Environment else {},
        )
        code, size = self._keep(asked.Code.ZipFile)
        latest = Version(number=LATEST, settings=settings, code=code, size=size, added=now, modified=now)
        self._begin(latest, "Creating")
        alias = Alias(name=DEFAULT_ALIAS, version=LATEST, added=now, modified=now)
        identifier = f"lam-{uuid.uuid4().hex[:8]}"
        self.functions.put(
            Function(
                name=asked.FunctionName,
                namespace=asked.Namespace,
                identifier=identifier,
                latest=latest,
                aliases={DEFAULT_ALIAS: alias},
            )
        )
        return {}

    @action()
    def get_function(self, _: Call, asked: GetFunction) -> Fields:
        function = self.functions.get(asked)
        version = function.version(asked.Qualifier)
        shown = _shown(function, version)
        if version.looks:
            version.looks -= 1
            if version.looks == 0:
                version.status = _FAILED[version.status] if self.fails else "Active"
            self.functions.put(function)
        return shown

    @action()
    def get_function_address(self, _: Call, asked: OfQualifier) -> Fields:
        version = self.functions.get(asked).version(asked.Qualifier)
        return {"Url": f"https://cos.invalid/{version.code}.zip", "CodeSha256": version.code}

    @action()
    def update_function_configuration(self, _: Call, asked: UpdateFunctionConfiguration) -> Fields:
        function = self.functions.settled(asked)
        changes: dict[str, Any] = {
            "description": asked.Description,
            "memory": None if asked.MemorySize is None else _memory(asked.MemorySize),
            "timeout": asked.Timeout,
            "role": asked.Role,
            "logset": asked.ClsLogsetId,
            "topic": asked.ClsTopicId,
            "variables": None if asked.Environment is None else asked.Environment.checked(),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        function.latest.settings = function.latest.settings.model_copy(update=given)
        self._changed(function, asked.Publish)
        return {}

    @action()
    def update_function_code(self, _: Call, asked: UpdateFunctionCode) -> Fields:
        function = self.functions.settled(asked)
        function.latest.code, function.latest.size = self._keep(asked.Code.ZipFile if asked.Code else asked.ZipFile)
        if asked.Handler is not None:
            function.latest.settings.handler = asked.Handler
        self._changed(function, asked.Publish)
        return {}

    @action()
    def delete_function(self, _: Call, asked: DeleteFunction) -> Fields:
        function = self.functions.get(asked)
        if asked.Qualifier is None:
            self.functions.remove(function)
            return {}
        version = function.version(asked.Qualifier)
        if any(version.number in (alias.version, *alias.weights) for alias in function.aliases.values()):
            raise ApiError("UnsupportedOperation.AliasBind", "An alias sends calls to this version.")
        del function.versions[version.number]
        self.functions.put(function)
        return {}

    def _changed(self, function: Function, publish: str) -> None:
        function.latest.modified = self.cloud.clock.now()
        if publish == "TRUE":
            self._publish(function, "")
        self._begin(function.latest, "Updating")
        self.functions.put(function)

    def _begin(self, version: Version, status: str) -> None:
        if self.looks:
            version.status, version.looks = status, self.looks

    def _keep(self, zipped: str | None) -> tuple[str, int]:
        """Keep the code; return its SHA-256 and size. Raises :class:`ApiError`."""
        if zipped is None:
            raise ApiError("InvalidParameterValue.Code", "Only code as ZipFile is emulated.")
        try:
            content = base64.b64decode(zipped, validate=True)
            zipfile.ZipFile(io.BytesIO(content)).close()
        except (binascii.Error, zipfile.BadZipFile):
            raise ApiError("InvalidParameterValue.InlineZipFile", "The ZipFile is no archive in Base64.") from None
        if len(content) > MOST_ZIP:
            raise ApiError("InvalidParameterValue.InlineZipFile", "The ZipFile is over 50 MB.")
        digest = hashlib.sha256(content).hexdigest()
        if self.functions.codes.get(digest) is None:
            self.functions.codes.put(digest, Code(zip=zipped))
        return digest, len(content)

    # Versions

    @action()
    def publish_version(self, _: Call, asked: PublishVersion) -> Fields:
        function = self.functions.settled(asked)
        version = self._publish(function, asked.Description)
        self.functions.put(function)
        settings = version.settings
        return {
            "FunctionVersion": version.number,
            "CodeSize": version.size,
            "MemorySize": settings.memory,
            "Description": settings.description,
            "Handler": settings.handler,
            "Timeout": settings.timeout,
            "Runtime": settings.runtime,
            "Namespace": function.namespace,
        }

    def _publish(self, function: Function, description: str) -> Version:
        if len(function.versions) >= MOST_VERSIONS:
            raise ApiError("LimitExceeded.FunctionVersions", f"A function has {MOST_VERSIONS} versions at most.")
        now = self.cloud.clock.now()
        function.published += 1
        settings = function.latest.settings.model_copy(update={"description": description}, deep=True)
        version = function.latest.model_copy(
            update={"number": str(function.published), "settings": settings, "added": now, "modified": now}
        )
        self._begin(version, "Publishing")
        function.versions[version.number] = version
        return version

    @action()
    def list_version_by_function(self, _: Call, asked: ListVersionByFunction) -> Fields:
        function = self.functions.get(asked)
        listed = [*function.versions.values(), function.latest]
        listed.sort(
            key=lambda version: version.added if asked.OrderBy == "AddTime" else version.modified,
            reverse=asked.Order == "DESC",
        )
        shown = page(listed, asked.Offset, asked.Limit)
        return {
            "FunctionVersion": [version.number for version in shown],
            "Versions": [
                {
                    "Version": version.number,
                    "Description": version.settings.description,
                    "AddTime": time_text(version.added),
                    "ModTime": time_text(version.modified),
                    "Status": version.status,
                }
                for version in shown
            ],
            "TotalCount": len(listed),
        }

    # Aliases

    @action()
    def create_alias(self, _: Call, asked: WriteAlias) -> Fields:
        function = self.functions.get(asked)
        if asked.Name in function.aliases:
            raise ApiError("ResourceInUse.Alias", f"The alias `{asked.Name}` exists already.")
        self._write_alias(function, asked, self.cloud.clock.now())
        return {}

    @action()
    def update_alias(self, _: Call, asked: WriteAlias) -> Fields:
        function = self.functions.get(asked)
        self._write_alias(function, asked, function.alias(asked.Name).added)
        return {}

    def _write_alias(self, function: Function, asked: WriteAlias, added: float) -> None:
        listed = asked.RoutingConfig.AdditionalVersionWeights if asked.RoutingConfig else []
        weights = {weight.Version: weight.Weight for weight in listed}
        for number in (asked.FunctionVersion, *weights):
            if function.version(number).status != "Active":
                raise ApiError("FailedOperation.FunctionVersionStatusNotActive", f"Version {number} is not Active.")
        if asked.FunctionVersion in weights:
            raise ApiError("InvalidParameterValue.AdditionalVersionWeights", "The additional version is the main one.")
        function.aliases[asked.Name] = Alias(
            name=asked.Name,
            version=asked.FunctionVersion,
            weights=weights,
            description=asked.Description,
            added=added,
            modified=self.cloud.clock.now(),
        )
        self.functions.put(function)

    @action()
    def get_alias(self, _: Call, asked: OfAlias) -> Fields:
        return _shown_alias(self.functions.get(asked).alias(asked.Name))

    @action()
    def list_aliases(self, _: Call, asked: ListAliases) -> Fields:
        aliases = [
            alias
            for alias in self.functions.get(asked).aliases.values()
            if asked.FunctionVersion in (None, alias.version, *alias.weights)
        ]
        shown = page(aliases, int(asked.Offset), int(asked.Limit))
        return {"Aliases": [_shown_alias(alias) for alias in shown], "TotalCount": len(aliases)}


def _memory(megabytes: int) -> int:
    if megabytes != 64 and (megabytes % 128 or not 128 <= megabytes <= 3072):
        raise ApiError("InvalidParameterValue.MemorySize", "MemorySize is 64, or 128 to 3072 by 128.")
    return megabytes


def _shown_alias(alias: Alias) -> Fields:
    weights = [{"Version": version, "Weight": weight} for version, weight in alias.weights.items()]
    return {
        "FunctionVersion": alias.version,
        "Name": alias.name,
        "RoutingConfig": {"AdditionalVersionWeights": weights, "AddtionVersionMatchs": []},
        "Description": alias.description,
        "AddTime": time_text(alias.added),
        "ModTime": time_text(alias.modified),
    }


def shown_trigger(trigger: Trigger) -> dict[str, Any]:
    return {
        "ModTime": time_text(trigger.modified),
        "Type": "timer",
        "TriggerDesc": f'{{"cron":"{trigger.cron}"}}',
        "TriggerName": trigger.name,
        "AddTime": time_text(trigger.added),
        "Enable": int(trigger.enabled),
        "CustomArgument": trigger.message,
        "AvailableStatus": "Available",
        "ResourceId": trigger.name,
        "BindStatus": "",
        "TriggerAttribute": "",
        "Qualifier": trigger.qualifier,
        "Description": trigger.description,
    }


def _shown(function: Function, version: Version) -> Fields:
    settings = version.settings
    failed = version.status.endswith("Failed")
    return {
        "ModTime": time_text(version.modified),
        "CodeInfo": "",
        "Description": settings.description,
        "Triggers": [shown_trigger(t) for t in function.triggers.values() if t.qualifier == version.number],
        "Handler": settings.handler,
        "CodeSize": version.size,
        "Timeout": settings.timeout,
        "FunctionVersion": version.number,
        "MemorySize": settings.memory,
        "Runtime": settings.runtime,
        "FunctionName": function.name,
        "VpcConfig": {"VpcId": "", "SubnetId": ""},
        "UseGpu": "FALSE",
        "Environment": {"Variables": [{"Key": key, "Value": value} for key, value in settings.variables.items()]},
        "CodeResult": "failed" if failed else "success",
        "CodeError": "",
        "ErrNo": 0,
        "Namespace": function.namespace,
        "Role": settings.role,
        "InstallDependency": "FALSE",
        "Status": version.status,
        "StatusDesc": "",
        "ClsLogsetId": settings.logset,
        "ClsTopicId": settings.topic,
        "FunctionId": function.identifier,
        "Tags": [],
        "EipConfig": {"EipFixed": "FALSE", "Eips": []},
        "AccessInfo": {"Host": "", "Vip": ""},
        "Type": "Event",
        "L5Enable": "FALSE",
        "Layers": [],
        "DeadLetterConfig": {"Type": "", "Name": "", "FilterType": ""},
        "AddTime": time_text(version.added),
        "PublicNetConfig": {"PublicNetStatus": "ENABLE", "EipConfig": {"EipStatus": "DISABLE", "EipAddress": []}},
        "OnsEnable": "FALSE",
        "CfsConfig": {"CfsInsList": []},
        "AvailableStatus": "Available",
        "Qualifier": version.number,
        "InitTimeout": 65,
        "StatusReasons": [{"ErrorCode": "InternalError", "ErrorMessage": "failed on demand"}] if failed else [],
        "AsyncRunEnable": "FALSE",
        "TraceEnable": "FALSE",
        "ImageConfig": None,
        "ProtocolType": None,
        "ProtocolParams": None,
        "InstanceConcurrencyConfig": None,
        "DnsCache": "FALSE",
        "IntranetConfig": {"IpFixed": "DISABLE", "IpAddress": None},
    }
