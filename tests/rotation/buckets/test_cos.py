"""A journal's objects in Tencent Cloud's object storage, where nothing is compared and so nothing is overwritten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.buckets import Bucket, cos
from rotation.buckets.cos import CosBucket
from rotation.cos import Cos
from rotation.errors import ClockSkew, Conflict, Unavailable, UsageError
from rotation.journal_place import open_journal
from rotation.settings import Settings
from tests.contracts.bucket import BucketContract, Plan
from tests.fixtures.cos import APP_ID, CosPlace

PROMPT = cos.PROMPT  # which most tests do not depend on: a machine may be slow
OWN = {"DeleteObject": "PutObject"}  # what is removed gets an empty revision


class TestCos(BucketContract):
    nowhere = f"cos://nowhere-{APP_ID}/x"

    @pytest.fixture
    def bucket(self, cos_place: CosPlace) -> Bucket:
        return CosBucket(cos_place.url)

    @pytest.fixture
    def another(self, cos_place: CosPlace) -> Bucket:
        return CosBucket(cos_place.url)

    @pytest.fixture
    def plan(self, cos_place: CosPlace) -> Plan:
        faults = cos_place.cloud.faults
        return lambda operation, kind, times: faults.plan(f"cos.{OWN.get(operation, operation)}", kind, times=times)

    @pytest.fixture
    def skew(self, cos_place: CosPlace) -> Callable[[float], None]:
        return cos_place.cloud.clock.run

    @pytest.fixture
    def secrets(self, cos_place: CosPlace) -> tuple[str, ...]:
        return (cos_place.cloud.key.secret_key,)


# Rows of revisions


def test_no_number_comes_back_and_what_was_replaced_long_ago_is_cleaned_up(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    etag = bucket.write("one", b"0", None)
    for count in range(1, 8):
        etag = bucket.write("one", str(count).encode(), etag)
    assert len(cos_place.keys("one/")) == 8
    cos_place.cloud.clock.run(-cos.KEPT.total_seconds() - 60)
    young = CosBucket(cos_place.url, Cos(cos_place.cos.name, clock=cos_place.cloud.clock.now))
    young_etag = young.write("two", b"0", None)
    for count in range(1, 8):
        young_etag = young.write("two", str(count).encode(), young_etag)
    cos_place.cloud.clock.run()
    bucket.write("two", b"8", young_etag)
    assert cos_place.keys("two/") == [f"journals/two/{number:010d}" for number in range(9 - cos.HISTORY, 10)]
    assert len(cos_place.keys("one/")) == 8, "what was replaced just now is not cleaned up"


def test_a_removed_object_goes_on_in_its_row(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    bucket.remove("one", bucket.write("one", b"1", None))
    assert bucket.write("one", b"2", None).startswith("3-")


def test_what_a_list_does_not_show_yet_is_found(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    etag = bucket.write("one", b"2", bucket.write("one", b"1", None))
    cos_place.cloud.faults.plan("cos.GetBucket", "stale", times=2, writes=1)
    found = bucket.read("one")
    assert found is not None
    assert found.body == b"2"
    assert bucket.write("one", b"3", etag).startswith("3-")


def test_what_else_lies_in_a_row_is_left_alone(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    cos_place.cos.put_new("journals/one/README", b"a person's", {})
    etag = bucket.write("one", b"1", None)
    assert etag.startswith("1-")
    assert "journals/one/README" in cos_place.keys("one/")


def test_what_a_person_puts_at_the_end_of_a_row_counts(cos_place: CosPlace) -> None:
    cos_place.cos.put_new("journals/one/0000000001", b"moved there", {})
    bucket = CosBucket(cos_place.url)
    found = bucket.read("one")
    assert found is not None
    assert found.body == b"moved there"
    assert bucket.write("one", b"2", found.etag).startswith("2-")


def test_more_revisions_than_one_list_shows_are_found(cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rotation.cos.PAGE", 2)
    bucket = CosBucket(cos_place.url)
    etag = None
    for count in range(5):
        etag = bucket.write("one", str(count).encode(), etag)
    found = bucket.read("one")
    assert found is not None
    assert found.body == b"4"
    assert len(cos_place.keys("one/")) == 5


def test_equal_content_is_another_write(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    first = bucket.write("one", b"1", None)
    bucket.write("one", b"1", bucket.write("one", b"2", first))
    with pytest.raises(Conflict):
        bucket.write("one", b"3", first)


# Two at once


def test_whoever_is_overwritten_by_a_request_at_the_same_time_has_lost(cos_place: CosPlace) -> None:
    def meanwhile(_: float) -> None:
        cos_place.cloud.faults.plan("cos.PutObject", "blind")
        cos_place.cos.put_new("journals/one/0000000001", b"theirs", {"keyturn-write": "theirs"})

    bucket = CosBucket(cos_place.url, wait=meanwhile)
    with pytest.raises(Conflict, match="in the meantime"):
        bucket.write("one", b"ours", None)
    found = bucket.read("one")
    assert found is not None
    assert found.body == b"theirs"


def test_what_was_read_before_another_request_replaced_it_is_not_built_on(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    etag = bucket.write("one", b"ours", None)
    cos_place.cloud.faults.plan("cos.PutObject", "blind")
    cos_place.cos.put_new("journals/one/0000000001", b"theirs", {"keyturn-write": "theirs"})
    with pytest.raises(Conflict, match="in the meantime"):
        bucket.write("one", b"built on ours", etag)
    assert len(cos_place.keys("one/")) == 1


def test_a_revision_is_built_on_once_nobody_can_win_it_any_more(
    cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = CosBucket(cos_place.url).write("one", b"1", None)
    monkeypatch.setattr(cos, "SETTLE", 60.0)
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        cos_place.cloud.clock.advance(seconds)

    patient = CosBucket(cos_place.url, Cos(cos_place.cos.name, clock=cos_place.cloud.clock.now), wait)
    patient.write("one", b"2", etag)
    before, after = waited
    assert 50 <= before <= 60
    assert after == 60


def test_a_write_that_took_too_long_is_not_believed(cos_place: CosPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request was held up in the network, and had its effect: the next one finds that, and goes on from it."""
    monkeypatch.setattr(cos, "PROMPT", PROMPT)
    clock = cos_place.cloud.clock
    clock.stop()
    bucket = CosBucket(cos_place.url, Cos(cos_place.cos.name, clock=clock.now))
    cos_place.cloud.faults.plan("cos.PutObject", "delay", seconds=PROMPT.total_seconds() + 1)
    with pytest.raises(Unavailable, match="too slowly"):
        bucket.write("one", b"1", None)
    clock.run()
    found = CosBucket(cos_place.url).read("one")
    assert found is not None
    assert found.body == b"1"


def test_a_request_that_arrives_after_its_signature_ended_has_no_effect(cos_place: CosPlace) -> None:
    clock = cos_place.cloud.clock
    clock.stop()
    signed_at = clock.now()
    bucket = CosBucket(cos_place.url, Cos(cos_place.cos.name, clock=lambda: signed_at))
    cos_place.cloud.faults.plan("cos.PutObject", "delay", seconds=301)
    with pytest.raises(ClockSkew, match="Request has expired"):
        bucket.write("one", b"1", None)
    clock.run()
    assert cos_place.keys() == []


# Buckets that overwrite all the same


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_a_bucket_with_versions_is_refused_at_the_first_write(cos_place: CosPlace, status: str, tmp_path: Path) -> None:
    cos_place.version("Enabled")
    cos_place.version(status)
    with pytest.raises(UsageError, match="versioning is on, or once was"):
        CosBucket(cos_place.url).write("one", b"1", None)
    settings = Settings(project=tmp_path, journal=cos_place.url)
    with (
        open_journal(settings, "staging", lambda *_: None) as journal,
        pytest.raises(UsageError, match="versioning is on, or once was"),
        journal.lease(["orders/db"]),
    ):
        pytest.fail("two runners could have this lease")


def test_versions_that_are_switched_on_during_a_run_are_noticed_at_its_next_write(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    etag = bucket.write("one", b"1", None)
    cos_place.version("Enabled")
    with pytest.raises(UsageError, match="versioning is on, or once was"):
        bucket.write("one", b"2", etag)


def test_the_proof_is_made_once_and_changes_nothing(cos_place: CosPlace) -> None:
    bucket = CosBucket(cos_place.url)
    etag = bucket.write("one", b"1", None)
    assert cos_place.cloud.faults.calls()["cos.PutObject"] == 2
    etag = bucket.write("one", b"2", etag)
    assert cos_place.cloud.faults.calls()["cos.PutObject"] == 3
    found = bucket.read("one")
    assert found is not None
    assert (found.body, found.etag) == (b"2", etag)


def test_a_write_is_a_matter_of_seconds() -> None:
    assert timedelta(seconds=cos.SETTLE) > PROMPT + timedelta(seconds=1), "whole seconds hide one"
    assert cos.KEPT > 10 * PROMPT
