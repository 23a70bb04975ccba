"""Refuses, at synth, what would put a secret's value into Terraform's state.

State keeps every argument and attribute in clear, sensitive or not, and so do saved plans. keyturn's rule is that no
value enters Terraform at all: it declares slots, and ``keyturn rotate`` fills them. Write-only arguments (``…_wo``) are
not kept in state, and pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsii
from constructs import IConstruct

from modules.cdk import IAspect, TerraformStack
from rotation.errors import DeclarationError
from rotation.value_carriers import DATA, RESOURCES, refused


@jsii.implements(IAspect)
class Secretless:
    """An aspect of a stack. It looks at the whole stack as it will be written, once: so it sees overrides, and
    resources of prebuilt bindings too. ``refusal`` is what it raised: jsii carries only the text out of a synth.
    """

    refusal: DeclarationError | None = None

    def visit(self, node: IConstruct) -> None:
        if not isinstance(node, TerraformStack):
            return
        found = list(refusals(node.to_terraform()))
        if found:
            self.refusal = DeclarationError(
                "; ".join(f"{_where(node, path)}{what}" for path, what in found),
                "Take it out of the stacks: Terraform is to see which version, never a value.",
            )
            raise self.refusal


def refusals(stack: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The construct path and the sentence for each thing refused in a synthesized stack."""
    for section, rules in (("resource", RESOURCES), ("data", DATA)):
        for kind, blocks in stack.get(section, {}).items():
            for name, block in blocks.items():
                path = block.get("//", {}).get("metadata", {}).get("path", f"{kind}.{name}")
                for what in refused(rules.get(kind), block):
                    yield path, f"{path} ({kind}) {what}"


def _where(stack: TerraformStack, path: str) -> str:
    """Where the construct at a path was declared, as "file:line: "; nothing for one that is not of modules/."""
    for construct in stack.node.find_all():
        where = getattr(construct, "where", None)
        if where is not None and construct.node.path == path:
            return f"{where}: "
    return ""
