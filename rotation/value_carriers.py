"""What would put a secret's value into Terraform's state: resources, data sources and arguments that do.

State keeps every argument and attribute in clear, sensitive or not, and so do saved plans. Write-only ones (``…_wo``)
are not kept in state. Synth refuses these (modules/secretless.py), and so does a review of a plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_VERSION = "its value would be kept in state; declare the slot alone and let `keyturn rotate` fill it"
_MADE = "it makes a value that is kept in state; declare a secret with a credential kind instead"
_READ = "what it reads is kept in state; let the application read it by the reference in its configuration"
_GIVEN = "this argument's value would be kept in state; use the write-only one (…_wo), or set the value outside"


@dataclass(frozen=True, slots=True)
class Rule:
    """``arguments`` are refused, at any depth; without any, the resource itself is. A block whose ``path`` matches
    ``spared`` has none of them."""

    reason: str
    arguments: frozenset[str] = frozenset()
    spared: re.Pattern[str] | None = None


def _arguments(*names: str) -> Rule:
    return Rule(_GIVEN, frozenset(names))


RESOURCES: Mapping[str, Rule] = {
    # Also with secret_string_wo: AWS prunes the version that Terraform tracks once two others came from outside, and
    # Terraform then makes it again, over the live value.
    "aws_secretsmanager_secret_version": Rule(_VERSION),
    "aws_iam_access_key": Rule(_MADE),
    "aws_iam_service_specific_credential": Rule(_MADE),
    "aws_iam_user_login_profile": Rule(_MADE),
    "aws_kms_ciphertext": Rule(_VERSION),
    "aws_ssm_parameter": _arguments("value"),
    "google_secret_manager_secret_version": _arguments("secret_data"),
    "google_service_account_key": Rule(_MADE),
    "azurerm_key_vault_secret": _arguments("value"),
    "kubernetes_secret": _arguments("data", "binary_data"),
    "kubernetes_secret_v1": _arguments("data", "binary_data"),
    "kubernetes_token_request_v1": Rule(_MADE),
    "local_sensitive_file": Rule(_VERSION),
    "random_bytes": Rule(_MADE),
    "random_password": Rule(_MADE),
    "tencentcloud_cam_access_key": Rule(_MADE),
    # It keeps a password, and by default an access key that it makes.
    "tencentcloud_cam_user": Rule(_MADE),
    "tencentcloud_kms_external_key": _arguments("key_material_base64"),
    "tencentcloud_ssm_secret_version": Rule(_VERSION),
    "tencentcloud_ssm_secret_version_v2": Rule(_VERSION),
    "tls_cert_request": _arguments("private_key_pem"),
    "tls_private_key": Rule(_MADE),
    "vault_approle_auth_backend_login": Rule(_MADE),
    "vault_approle_auth_backend_role_secret_id": Rule(_MADE),
    "vault_consul_secret_backend": _arguments("token"),
    "vault_database_secret_backend_static_role": _arguments("self_managed_password"),
    # The metadata of a secret in KV v2 holds no value, and is its slot.
    "vault_generic_endpoint": Rule(_GIVEN, frozenset({"data_json"}), spared=re.compile(r"[^/]+/metadata/.+")),
    "vault_gcp_auth_backend": _arguments("credentials"),
    "vault_gcp_secret_backend": _arguments("credentials"),
    "vault_generic_secret": _arguments("data_json"),
    "vault_kubernetes_auth_backend_config": _arguments("token_reviewer_jwt"),
    "vault_kubernetes_secret_backend": _arguments("service_account_jwt"),
    "vault_kv_secret": _arguments("data_json"),
    "vault_kv_secret_v2": _arguments("data_json"),
    "vault_ldap_auth_backend": _arguments("bindpass"),
    "vault_ldap_secret_backend": _arguments("bindpass"),
    "vault_nomad_secret_backend": _arguments("token"),
    "vault_okta_auth_backend": _arguments("token"),
    "vault_pki_secret_backend_cert": Rule(_MADE),
    "vault_pki_secret_backend_config_ca": _arguments("pem_bundle"),
    "vault_terraform_cloud_secret_backend": _arguments("token"),
    "vault_token": Rule(_MADE),
}

DATA: Mapping[str, Rule] = {
    name: Rule(_READ)
    for name in (
        "aws_eks_cluster_auth",
        "aws_kms_secrets",
        "aws_secretsmanager_random_password",
        "aws_secretsmanager_secret_version",
        "aws_ssm_parameter",
        "aws_ssm_parameters_by_path",
        "google_secret_manager_secret_version",
        "azurerm_key_vault_secret",
        "kubernetes_secret",
        "kubernetes_secret_v1",
        "tencentcloud_ssm_secret_versions",
        "tencentcloud_ssm_ssh_key_pair_value",
        "vault_aws_access_credentials",
        "vault_azure_access_credentials",
        "vault_generic_secret",
        "vault_kubernetes_service_account_token",
        "vault_kv_secret",
        "vault_kv_secret_v2",
        "vault_ldap_dynamic_credentials",
        "vault_ldap_static_credentials",
        "vault_nomad_access_token",
        "vault_transit_decrypt",
    )
}

# In whatever resource they stand, by names that providers agree on.
ANYWHERE = _arguments(
    "admin_password",
    "administrator_login_password",
    "api_key",
    "auth_token",
    "client_secret",
    "master_password",
    "master_user_password",
    "oidc_client_secret",
    "password",
    "plaintext",
    "plaintext_password",
    "plaintext_value",
    "private_key",
    "private_key_pem",
    "root_password",
    "secret_binary",
    "secret_key",
    "secret_string",
)


def refused(rule: Rule | None, block: Mapping[str, Any]) -> Iterator[str]:
    """Why a block of a resource, whose kind has this rule or none, is refused; nothing when it is not."""
    if rule is not None and not rule.arguments:
        yield f"is refused: {rule.reason}"
        return
    if rule is not None and rule.spared is not None and rule.spared.fullmatch(str(block.get("path", ""))):
        rule = None
    for argument in sorted(arguments_of(rule).intersection(_set_in(block))):
        yield f"sets {argument}: {_GIVEN}"


def arguments_of(rule: Rule | None) -> frozenset[str]:
    """The arguments, at any depth, that carry a value in a resource whose kind has this rule or none."""
    return ANYWHERE.arguments | (rule.arguments if rule else frozenset())


def _set_in(block: Any) -> Iterator[str]:
    """The names of the arguments that are set in a block and in the blocks in it."""
    if isinstance(block, Mapping):
        for name, value in block.items():
            if value and isinstance(value, (str, Mapping, list)):  # a number or a flag is no value of a secret
                yield name
            yield from _set_in(value)
    elif isinstance(block, list):
        for element in block:
            yield from _set_in(element)
