"""Values go to the store sealed where that is declared, and come back in clear, to memory only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from rotation.custody import Custody
from rotation.errors import DeclarationError, KeyServiceError, StoreError
from rotation.keys import DataKey, KeyService, KeyView
from rotation.manifest import Key, Manifest, Plugin, Secret
from rotation.model import Version
from rotation.sealing import is_sealed
from rotation.secret_value import SecretValue
from tests.world import NAME, World, memory_folder
from tests.world_plugins import WorldPlugins

VALUE = SecretValue("canary-value")
FIRST = Version("v1", 1)


class KeysInMemory(KeyService):
    """Wraps a key by handing out a ticket, and gives it back for the ticket and the same context."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._wrapped: dict[bytes, tuple[bytes, str, Mapping[str, str]]] = {}

    def observe(self, keys: Sequence[str]) -> dict[str, KeyView]:
        return {key: KeyView(key) for key in keys}

    def rotate(self, key: str) -> None:
        raise KeyServiceError("these keys are not rotated")

    def data_key(self, key: str, context: Mapping[str, str]) -> DataKey:
        made = DataKey(os.urandom(32), os.urandom(16))
        self._wrapped[made.wrapped] = (made.plaintext, key, context)
        return made

    def unwrap(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        plaintext, *bound = self._wrapped[wrapped]
        if bound != [key, context]:
            raise KeyServiceError("the context is another one")
        return plaintext


class PluginsWithKeys(WorldPlugins):
    def __init__(self, world: World, manifest: Manifest) -> None:
        super().__init__(world, "runner", world.project, manifest)
        self._service = KeysInMemory({})

    def keys(self, key: Key) -> KeyService:
        return self._service


@pytest.fixture
def world() -> Iterator[World]:
    with memory_folder() as folder:
        yield World(folder)


def custody_of(world: World, **declared: Any) -> tuple[Custody, Secret]:
    secret = world.secret().model_copy(update=declared)
    keys = {"orders": Key(service=Plugin(kind="in_memory"), reference="alias/orders")}
    manifest = world.manifest.model_copy(update={"secrets": {NAME: secret}, "keys": keys})
    return Custody(manifest, PluginsWithKeys(world, manifest)), secret


def test_a_sealed_value_is_not_in_the_store_in_clear_and_comes_back_whole(world: World) -> None:
    custody, secret = custody_of(world, sealed=True, key="orders")
    assert custody.stage(secret, 1, VALUE).value == VALUE
    stored = world.slot.values[1]
    assert is_sealed(stored)
    assert VALUE.reveal() not in stored.reveal()
    assert custody.read(secret, FIRST).value == VALUE


def test_a_value_that_is_not_sealed_is_stored_as_it_is(world: World) -> None:
    custody, secret = custody_of(world)
    custody.stage(secret, 1, VALUE)
    assert world.slot.values[1] == VALUE
    assert custody.read(secret, FIRST).value == VALUE


def test_the_value_of_the_runner_that_was_first_is_what_both_get(world: World) -> None:
    custody, secret = custody_of(world, sealed=True, key="orders")
    custody.stage(secret, 1, VALUE)
    assert custody.stage(secret, 1, SecretValue("of the second one")).value == VALUE


def test_what_was_stored_before_sealing_was_declared_can_be_read(world: World) -> None:
    plain, secret = custody_of(world)
    plain.stage(secret, 1, VALUE)
    sealing, secret = custody_of(world, sealed=True, key="orders")
    assert sealing.read(secret, FIRST).value == VALUE


def test_a_candidate_that_somebody_staged_unsealed_is_not_taken(world: World) -> None:
    plain, secret = custody_of(world)
    plain.stage(secret, 1, SecretValue("of somebody who cannot seal"))
    sealing, secret = custody_of(world, sealed=True, key="orders")
    with pytest.raises(StoreError, match="unsealed") as caught:
        sealing.stage(secret, 1, VALUE)
    assert "cannot seal" not in str(caught.value)


def test_an_envelope_of_another_generation_does_not_open(world: World) -> None:
    custody, secret = custody_of(world, sealed=True, key="orders")
    custody.stage(secret, 1, VALUE)
    world.slot.values[2] = world.slot.values[1]
    with pytest.raises((KeyServiceError, StoreError)) as caught:
        custody.read(secret, Version("v2", 2))
    assert VALUE.reveal() not in str(caught.value)


def test_a_sealed_value_without_a_declared_key_says_so(world: World) -> None:
    sealing, secret = custody_of(world, sealed=True, key="orders")
    sealing.stage(secret, 1, VALUE)
    plain, secret = custody_of(world)
    with pytest.raises(DeclarationError, match="the value of orders/db is sealed, and it declares no key"):
        plain.read(secret, FIRST)
