"""Who rotates, with the least that this needs, and whom it trusts; and who deploys, where that is another vendor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modules.declarations import Estate
from modules.resource import Stack
from modules.vendor import ConfigVendor, OidcTrust, Places, RunnerSpec, Trust, Vendor
from modules.where import here
from rotation.errors import DeclarationError
from rotation.manifest import Plugin


class RunnerIdentity:
    """The role of ``keyturn rotate`` in one environment.

    It covers just the estate's secrets, what their credential kinds read, the keys, the consumers' configuration
    objects, the state of the application stack and the journal; ``keys`` are the keys' addresses by name.
    """

    def __init__(
        self,
        stack: Stack,
        vendor: Vendor,
        estate: Estate,
        *,
        keys: Mapping[str, str],
        places: Places,
        trusts: Sequence[Trust],
    ) -> None:
        where = here()
        for trust in trusts:
            _check(trust, f"{where}: {stack.name}/runner")
        spec = RunnerSpec(
            secrets=tuple(vendor.stored_as(secret.name) for secret in estate.secrets),
            sealed=tuple(vendor.stored_as(secret.name) for secret in estate.secrets if secret.sealed),
            reads=tuple(sorted({read for secret in estate.secrets for read in secret.credential.reads})),
            credentials={
                secret.name: Plugin(kind=secret.credential.kind, options=dict(secret.credential.options))
                for secret in estate.secrets
            },
            keys=keys,
            store_keys=frozenset(secret.key for secret in estate.secrets if secret.key),
            sealing_keys=frozenset(secret.key for secret in estate.secrets if secret.key and secret.sealed),
            consumers=tuple(consumer.name for consumer in estate.consumers),
            places=places,
            trusts=trusts,
        )
        vendor.runner(stack, spec, where)


class DeployerIdentity:
    """The role of ``keyturn rotate`` at the vendor of the configuration, where another one has the secrets.

    It covers just the consumers' configuration objects, the state of the application stack and the journal.
    """

    def __init__(
        self, stack: Stack, vendor: ConfigVendor, estate: Estate, *, places: Places, trusts: Sequence[Trust]
    ) -> None:
        where = here()
        for trust in trusts:
            _check(trust, f"{where}: {stack.name}/runner")
        spec = RunnerSpec(
            secrets=(),
            sealed=(),
            reads=(),
            credentials={},
            keys={},
            store_keys=frozenset(),
            sealing_keys=frozenset(),
            consumers=tuple(consumer.name for consumer in estate.consumers),
            places=places,
            trusts=trusts,
        )
        vendor.runner(stack, spec, where)


def github_actions(
    repository: str, environment: str, *, audience: str = "sts.amazonaws.com", registered: bool = False
) -> OidcTrust:
    """Trust in the jobs of one repository ("owner/name") that run in one of its GitHub environments, whose protection
    rules then decide who may start them. ``audience`` is whom their tokens are made for: by default AWS.
    https://docs.github.com/actions/reference/security/oidc"""
    return OidcTrust(
        issuer="https://token.actions.githubusercontent.com",
        audience=audience,
        claims={"sub": f"repo:{repository}:environment:{environment}"},
        registered=registered,
    )


def _check(trust: Trust, who: str) -> None:
    if not isinstance(trust, OidcTrust):
        return
    if not trust.issuer.startswith("https://"):
        raise DeclarationError(f"{who} trusts the issuer {trust.issuer!r}, which is not an https:// address")
    subject = trust.claims.get("sub", "")
    if not subject or "*" in subject:
        raise DeclarationError(
            f"{who} trusts {trust.issuer} without a subject of its own (sub is {subject!r})",
            "Name the repository and the environment in the claim sub: without them, anyone's job there could rotate.",
        )
