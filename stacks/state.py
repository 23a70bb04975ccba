"""Where Terraform keeps a stack's state."""

from __future__ import annotations

from modules.cdk import CosBackend, LocalBackend, S3Backend
from modules.resource import Stack
from stacks.environments import CosState, LocalState, S3State


def keep_state(stack: Stack, state: LocalState | S3State) -> None:
    if isinstance(state, LocalState):
        LocalBackend(stack, path=str(state.folder / f"{stack.name}.tfstate"))
        return
    if isinstance(state, CosState):
        CosBackend(stack, bucket=state.bucket, key=state.key(stack.name), region=state.region, encrypt=True)
        return
    S3Backend(stack, bucket=state.bucket, key=state.key(stack.name), region=state.region, encrypt=True)
    # cdktf 0.21 is older than Terraform's own locking, and has no argument for it.
    stack.add_override("terraform.backend.s3.use_lockfile", True)
