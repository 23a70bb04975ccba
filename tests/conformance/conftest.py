"""Ends the run at once, and says what is missing, where Tencent Cloud cannot be asked."""

from __future__ import annotations

import pytest

from rotation.errors import KeyturnError
from tests.conformance.account import Account

NEEDED = "The suite needs TENCENTCLOUD_REGION, TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY of an account."


@pytest.fixture(scope="session")
def account() -> Account:
    try:
        return Account.of_environment()
    except KeyturnError as error:
        reason = f"Tencent Cloud is not asked: {error}. {error.remedy} {NEEDED}"
    pytest.exit(reason, returncode=2)
