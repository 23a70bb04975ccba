"""The suites that are meant for Tencent Cloud itself (`make test-tencent`), pointed at the emulator: so they work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.tencent import TencentCloud, ask

ROOT = Path(__file__).parents[2]


def _conformance(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The suites, run by somebody who has these variables, and no credentials at home."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TENCENTCLOUD_", "KEYTURN_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/conformance", *arguments]
    environment = {**clean, "HOME": str(home), **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_unless_it_is_asked_for_it_is_skipped_with_a_reason(tmp_path: Path) -> None:
    done = _conformance(tmp_path)
    assert "SKIPPED [2]" in done.stdout
    assert "make test-tencent" in done.stdout


@pytest.mark.parametrize(
    ("region", "key", "says"),
    [
        ("", "", "no region of Tencent Cloud is set"),
        ("ap-guangzhou", "AKIDstranger", "AuthFailure.SecretIdNotFound"),
    ],
)
def test_without_an_account_it_ends_at_once_and_says_what_is_missing(
    tencent: TencentCloud, tmp_path: Path, region: str, key: str, says: str
) -> None:
    done = _conformance(
        tmp_path,
        KEYTURN_TENCENT_CONFORMANCE="1",
        KEYTURN_TENCENT_ENDPOINT=f"http://{tencent.endpoint}",
        TENCENTCLOUD_REGION=region,
        TENCENTCLOUD_SECRET_ID=key,
        TENCENTCLOUD_SECRET_KEY=key,
    )
    assert done.returncode == 2
    assert says in done.stdout
    assert "TENCENTCLOUD_REGION, TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY" in done.stdout
    assert "no tests ran" in done.stdout


def test_on_a_faithful_cloud_it_passes_and_leaves_nothing_behind(tencent: TencentCloud, tmp_path: Path) -> None:
    done = _conformance(
        tmp_path,
        "-k=test_tencent_kms or test_rewrapping_again or test_no_value",
        KEYTURN_TENCENT_CONFORMANCE="1",
        KEYTURN_TENCENT_ENDPOINT=f"http://{tencent.endpoint}",
        TENCENTCLOUD_REGION=tencent.region,
        **tencent.environment,
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    ssm, kms = tencent.client("ssm"), tencent.client("kms")
    assert not ask(ssm, "ListSecrets", SearchSecretName="keyturn-conformance-").SecretMetadatas
    keys = ask(kms, "ListKeyDetail", SearchKeyAlias="keyturn-conformance-", Limit=200).KeyMetadatas
    assert [key.KeyState for key in keys] == ["PendingDelete"] * 2
