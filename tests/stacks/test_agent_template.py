"""The template for Vault Agent, rendered and given to a real agent."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from main import PROJECT
from rotation.local import openbao as embedded
from rotation.model import Reference, Ring
from rotation.render import Context, render
from tests.fixtures.openbao import OpenBao

LOGIN = {"username": "orders_app_a", "password": 'a-"quoted"-canary'}

# What the agent's login asks, and Vault's default policy gives.
OWN_TOKEN = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


def test_an_agent_writes_the_pinned_generation_and_not_the_current_one(
    openbao: OpenBao, kv_mount: str, tmp_path: Path
) -> None:
    kv = openbao.client().secrets.kv.v2
    kv.create_or_update_secret("_rotation/orders/db/g7", LOGIN, mount_point=kv_mount)
    kv.create_or_update_secret("orders/db", LOGIN | {"password": "another"}, mount_point=kv_mount)
    pinned = Reference("orders/db", f"{kv_mount}/data/orders/db", f"{kv_mount}/data/_rotation/orders/db/g7", 7)
    context = Context("local-vault", Ring.CANARY, "orders-api", {"orders/db": pinned})

    text = render(PROJECT / "stacks/config/orders-api.agent.json.j2", "json", context)

    assert LOGIN["password"] not in text
    (stanza,) = json.loads(text)["template"]
    assert stanza["destination"] == "/run/orders-api/db.json"
    written = tmp_path / "db.json"
    (tmp_path / "template.json").write_text(json.dumps({"template": [stanza | {"destination": str(written)}]}))
    may_read = f'path "{kv_mount}/data/_rotation/orders/db/g7" {{ capabilities = ["read"] }}'
    with openbao.policy(f"{may_read}\n{OWN_TOKEN}") as token:
        _run_agent(openbao, token, tmp_path)
    assert json.loads(written.read_text(encoding="utf-8")) == LOGIN
    assert written.stat().st_mode & 0o777 == 0o600


def _run_agent(server: OpenBao, token: str, folder: Path) -> None:
    """Let an agent write its files once."""
    (folder / "token").write_text(token, encoding="utf-8")
    where = f"""
vault {{ address = "{server.address}" }}
auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{folder}/token" }} }} }}
exit_after_auth = true
"""
    (folder / "agent.hcl").write_text(where, encoding="utf-8")
    argv = [str(embedded.program()), "agent", f"-config={folder}/agent.hcl", f"-config={folder}/template.json"]
    done = subprocess.run(
        argv, env=embedded.environment(), cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
