"""What every bucket does for a journal. A kind's test makes the bucket, and says how to break it."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import stamina

from rotation.buckets import Bucket
from rotation.errors import ClockSkew, Conflict, JournalError, KeyturnError, Unauthorized, Unavailable

Plan = Callable[[str, str, int], None]


class BucketContract:
    """``bucket`` is made anew for each test, on a prefix of its own; ``another`` is a second runner's on the same one.
    ``plan(operation, kind, times)`` lets calls fail, by the names of S3 (``PutObject``) and of the emulators' faults;
    ``skew`` moves the server's clock by seconds."""

    nowhere: str  # the URL of a bucket that is not there

    @pytest.fixture
    @abstractmethod
    def bucket(self) -> Bucket: ...

    @pytest.fixture
    @abstractmethod
    def another(self) -> Bucket: ...

    @pytest.fixture
    @abstractmethod
    def plan(self) -> Plan: ...

    @pytest.fixture
    @abstractmethod
    def skew(self) -> Callable[[float], None]: ...

    @pytest.fixture
    @abstractmethod
    def secrets(self) -> tuple[str, ...]:
        """What the runner signs with."""

    @pytest.fixture(autouse=True)
    def few_attempts(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=2):
            yield

    def test_what_is_written_is_read_with_its_age(self, bucket: Bucket, another: Bucket) -> None:
        assert bucket.read("one") is None
        etag = bucket.write("one", b"1", None)
        found = another.read("one")
        assert found is not None
        assert (found.body, found.etag) == (b"1", etag)
        assert found.age >= timedelta(0)
        assert another.read("two") is None

    def test_it_grows_older_by_the_server_s_clock(self, bucket: Bucket, skew: Callable[[float], None]) -> None:
        bucket.write("one", b"1", None)
        skew(20)
        found = bucket.read("one")
        assert found is not None
        assert found.age >= timedelta(seconds=19)

    def test_of_two_that_make_an_object_the_first_one_wins(self, bucket: Bucket, another: Bucket) -> None:
        bucket.write("one", b"1", None)
        with pytest.raises(Conflict):
            another.write("one", b"2", None)
        self.stands(another, b"1")

    def test_of_two_that_replace_an_object_the_first_one_wins(self, bucket: Bucket, another: Bucket) -> None:
        first = bucket.write("one", b"1", None)
        second = another.write("one", b"2", first)
        with pytest.raises(Conflict):
            bucket.write("one", b"3", first)
        self.stands(bucket, b"2")
        assert bucket.write("one", b"3", second) not in (first, second)

    def test_what_is_removed_can_be_made_anew_and_not_replaced(self, bucket: Bucket, another: Bucket) -> None:
        etag = bucket.write("one", b"1", None)
        bucket.remove("one", etag)
        assert another.read("one") is None
        with pytest.raises(Conflict):
            another.write("one", b"2", etag)
        another.write("one", b"3", None)
        self.stands(bucket, b"3")

    def test_what_was_replaced_is_not_removed(self, bucket: Bucket, another: Bucket) -> None:
        etag = bucket.write("one", b"1", None)
        another.write("one", b"2", etag)
        with pytest.raises(Conflict):
            bucket.remove("one", etag)
        self.stands(bucket, b"2")

    def test_names_that_begin_alike_are_two_objects(self, bucket: Bucket) -> None:
        bucket.write("one", b"1", None)
        bucket.write("one.more", b"2", None)
        assert [found and found.body for found in map(bucket.read, ("one", "one.more"))] == [b"1", b"2"]

    @pytest.mark.parametrize("kind", ["lost_reply", "throttle", "drop"])
    def test_a_fault_of_the_moment_costs_nothing(self, bucket: Bucket, plan: Plan, kind: str) -> None:
        plan("PutObject", kind, 1)
        plan("GetObject", kind, 1)
        plan("HeadObject", kind, 1)
        etag = bucket.write("one", b"1", None)
        plan("PutObject", kind, 1)
        etag = bucket.write("one", b"2", etag)
        self.stands(bucket, b"2")
        plan("DeleteObject", kind, 1)
        bucket.remove("one", etag)
        assert bucket.read("one") is None

    def test_what_stays_away_is_unavailable_and_changes_nothing(self, bucket: Bucket, plan: Plan) -> None:
        etag = bucket.write("one", b"1", None)
        plan("PutObject", "drop", 2)
        with pytest.raises(Unavailable):
            bucket.write("one", b"2", etag)
        self.stands(bucket, b"1")

    def test_without_patience_it_is_tried_once(self, bucket: Bucket, plan: Plan) -> None:
        plan("PutObject", "throttle", 1)
        with pytest.raises(Unavailable):
            bucket.write("one", b"1", None, patient=False)
        bucket.write("one", b"1", None, patient=False)

    def test_who_may_not_write_is_told_so(self, bucket: Bucket, plan: Plan) -> None:
        plan("PutObject", "deny", 1)
        with pytest.raises(Unauthorized):
            bucket.write("one", b"1", None)
        assert bucket.read("one") is None

    def test_a_wrong_clock_is_named(self, bucket: Bucket, skew: Callable[[float], None]) -> None:
        skew(3600)
        with pytest.raises(ClockSkew):
            bucket.read("one")
        with pytest.raises(ClockSkew):
            bucket.write("one", b"1", None)

    @pytest.mark.usefixtures("bucket")
    def test_a_bucket_that_is_not_there_is_named(self, bucket: Bucket) -> None:
        missing = type(bucket)(self.nowhere)
        with pytest.raises(JournalError, match="NoSuchBucket"):
            missing.read("one")
        with pytest.raises(JournalError, match="NoSuchBucket"):
            missing.write("one", b"1", None)

    def test_no_key_gets_into_logs_or_errors(
        self, bucket: Bucket, plan: Plan, secrets: tuple[str, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        told = []
        for kind in ("deny", "drop", "lost_reply", "throttle"):
            plan("PutObject", kind, 2)
            try:
                bucket.write("one", b"CANARY-in-a-journal", None)
            except KeyturnError as error:
                told += [str(error), repr(error.__cause__), repr(error.__context__), error.remedy]
        bucket.read("one")
        for secret in (*secrets, "CANARY"):
            assert secret not in "\n".join([*told, caplog.text])
        assert told

    @staticmethod
    def stands(bucket: Bucket, body: bytes) -> None:
        found = bucket.read("one")
        assert found is not None
        assert found.body == body
