"""Terraform's building blocks, checked where they are declared.

They are built on the CDK's low-level classes: the prebuilt bindings of the AWS provider alone take 36 s and 1.2 GB to
import, and their types hold for one provider version, while environments pin different ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jsii

from modules.cdk import (
    Annotations,
    App,
    Aspects,
    TerraformDataSource,
    TerraformProvider,
    TerraformProviderGeneratorMetadata,
    TerraformResource,
    TerraformStack,
)
from modules.schema import Schema
from modules.secretless import Secretless
from modules.where import Where, here
from rotation.errors import DeclarationError

Arguments = Mapping[str, Any]


class Stack(TerraformStack):
    """A stack that refuses values in state and knows the schemas of its providers. ``warnings`` is what it warned of.

    Resources stand directly in it, not in a construct of their own each: their addresses then read plainly
    (``aws_secretsmanager_secret.orders--db``), and each costs one call over to Node instead of two.
    """

    def __init__(self, app: App, name: str) -> None:
        super().__init__(app, name)
        self.name = name
        self.schemas = {"terraform": Schema.load("terraform", "builtin")}
        self.warnings: list[str] = []
        self.secretless = Secretless()
        Aspects.of(self).add(self.secretless)

    def warn(self, message: str) -> None:
        Annotations.of(self).add_warning(message)
        self.warnings.append(message)


class Resource(TerraformResource):
    """One resource of any provider that its stack has, made ``after`` others. Arguments that are None are left out.

    Raises :class:`DeclarationError`, naming the declaring line, the construct and the argument, for arguments that
    the provider's pinned version does not take.
    """

    def __init__(
        self,
        stack: Stack,
        name: str,
        kind: str,
        arguments: Arguments,
        *,
        where: Where | None = None,
        after: Sequence[Resource] = (),
    ) -> None:
        self.where = where or here()
        self._arguments = _given(arguments)
        problems = _schema(stack, kind, self.where).problems(kind, self._arguments)
        _refuse(problems, self.where, f"{stack.name}/{construct_id(name)} ({kind})")
        try:
            super().__init__(stack, construct_id(name), terraform_resource_type=kind, depends_on=after or None)
        except RuntimeError as error:  # jsii's, as for two constructs of one name
            raise DeclarationError(f"{self.where}: {stack.name}/{construct_id(name)}: {error}") from error

    @jsii.member(jsii_name="synthesizeAttributes")
    def _synthesize_attributes(self) -> Arguments:
        return self._arguments


class Data(TerraformDataSource):
    """What a provider looks up when it plans, checked likewise. It is kept in state: never a value."""

    def __init__(self, stack: Stack, name: str, kind: str, arguments: Arguments, *, where: Where) -> None:
        self.where = where
        self._arguments = _given(arguments)
        problems = _schema(stack, kind, where).problems_of_data(kind, self._arguments)
        _refuse(problems, where, f"{stack.name}/{construct_id(name)} ({kind})")
        super().__init__(stack, construct_id(name), terraform_resource_type=kind)

    @jsii.member(jsii_name="synthesizeAttributes")
    def _synthesize_attributes(self) -> Arguments:
        return self._arguments


class Provider(TerraformProvider):
    """A provider in one version, checked likewise. ``source`` is like "hashicorp/aws"."""

    def __init__(self, stack: Stack, source: str, version: str, arguments: Arguments) -> None:
        name = source.rpartition("/")[2]
        schema = stack.schemas[name] = Schema.load(name, version)
        self._arguments = _given(arguments)
        _refuse(schema.problems_of_configuration(self._arguments), here(), f"{stack.name}/{name} (provider)")
        super().__init__(
            stack,
            name,
            terraform_resource_type=name,
            terraform_generator_metadata=TerraformProviderGeneratorMetadata(
                provider_name=name, provider_version=version
            ),
            terraform_provider_source=source,
        )

    @jsii.member(jsii_name="synthesizeAttributes")
    def _synthesize_attributes(self) -> Arguments:
        return self._arguments


def construct_id(name: str) -> str:
    """The name as part of a construct's path, and as the last part of a Terraform address."""
    return name.replace("/", "--")


def address(kind: str, name: str) -> str:
    """The Terraform address of a resource that stands directly in its stack."""
    return f"{kind}.{construct_id(name)}"


def literal(text: str) -> str:
    """The text as Terraform must be given it to mean just that: its own templates' openings are doubled."""
    return text.replace("${", "$${").replace("%{", "%%{")


def text_object(bucket: str, key: str, content: str) -> dict[str, Any]:
    """The arguments that an object in a bucket has with every provider, for one that holds a text."""
    return {
        "bucket": bucket,
        "key": key,
        "content": literal(content),
        "content_type": "text/plain; charset=utf-8",
        # After an update that failed the provider keeps the new content in its state all the same; only the object's
        # own ETag, which is the MD5 of its text, shows the next plan that it is still the old one.
        "etag": hashlib.md5(content.encode(), usedforsecurity=False).hexdigest(),
    }


def _given(arguments: Arguments) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _schema(stack: Stack, kind: str, where: Where) -> Schema:
    """The schema of the provider that a resource or data source is of."""
    schema = stack.schemas.get(kind.partition("_")[0])
    if schema is None:
        raise DeclarationError(f"{where}: {stack.name} has no provider for {kind}")
    return schema


def _refuse(problems: list[str], where: Where, what: str) -> None:
    if problems:
        raise DeclarationError(f"{where}: {what}: {'; '.join(problems)}")
