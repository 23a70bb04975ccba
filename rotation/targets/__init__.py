"""Deploy targets: how a consumer's configuration reaches its rings. Every file here is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rotation.manifest import Manifest
from rotation.model import Place


@dataclass(frozen=True, slots=True)
class Deployment:
    """What an apply did: the digest of the plan that was applied, and the addresses that it changed."""

    digest: str
    changed: tuple[str, ...]


class DeployTarget(ABC):
    """One way to deploy, for all consumers of an environment that name it. Places are (consumer, ring).

    ``in_stacks`` tells whether who deploys the environment's stacks deploys its places with them.
    """

    in_stacks: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any], project: Path, manifest: Manifest) -> None: ...

    @abstractmethod
    def deployed(self) -> dict[Place, dict[str, int]]:
        """The generation of each secret that each place was last deployed with. A place never deployed is absent."""

    @abstractmethod
    def apply(self, places: Sequence[Place]) -> Deployment:
        """Deploy these places' rendered configuration, and nothing else."""
