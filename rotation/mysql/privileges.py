"""What one MySQL or MariaDB user may do and another may not, by SHOW GRANTS.

Compared are the grants on the server, databases, tables, columns and routines, PROXY, those of the roles that sessions
start with and of the roles in these; the roles themselves; and limits on the user's resources. A grant on more covers
one on less: a database's those on its tables, also where its name is a pattern.

Not seen: what a routine or a view decides by ``USER()``, what MySQL's partial revokes take away, MariaDB's role PUBLIC,
and whether TLS is demanded of the user. Only use shows those: that is what the canary is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from rotation.errors import TargetError
from rotation.mysql import Connection
from rotation.mysql.accounts import Accounts

_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON (?P<object>.+?) TO (?P<grantee>[`'].+)$")
_ROLE = re.compile(r"GRANT (?P<roles>[`'][^`']+[`'](?:@[`'][^`']*[`'])?(?:,.+?)?) TO (?P<grantee>[`'].+)$")
_NAME = re.compile(r"[`']([^`']+)[`'](?:@[`'][^`']*[`'])?")
_PRIVILEGE = re.compile(r"([A-Za-z_][A-Za-z_ ]*?)(?: \(([^)]*)\))?(?:, |$)")
_LIMITS = ("max_questions", "max_updates", "max_connections", "max_user_connections")


@dataclass(frozen=True, slots=True)
class _Held:
    """One privilege on one object; ``column`` is empty for all of a table."""

    privilege: str
    kind: str  # "", "PROCEDURE", "FUNCTION", …
    database: str  # "*" for all, "" where a role or a proxy is meant; a pattern
    name: str  # "*" for all of the database
    column: str = ""

    def covers(self, other: _Held) -> bool:
        everything = self.privilege == "ALL PRIVILEGES" and other.privilege not in ("GRANT OPTION", "PROXY", "role")
        if not everything and self.privilege != other.privilege:
            return False
        if self.column and self.column != other.column:
            return False
        same = (self.kind, self.database, self.name) == (other.kind, other.database, other.name)
        wide = not self.kind and self.name == "*" and bool(self.database) and bool(other.database)
        return same or (wide and (self.database == "*" or _matches(self.database, other.database)))

    def __str__(self) -> str:
        if not self.database:
            return f"{self.privilege} {self.name}"
        place = f"{self.database}.{self.name}" + (f".{self.column}" if self.column else "")
        return f"{self.privilege} on {f'{self.kind.lower()} ' if self.kind else ''}{place}"


def missing(accounts: Accounts, old: str, new: str) -> tuple[str, ...]:
    """What the user ``old`` may do and ``new`` may not: "SELECT on orders.audit", sorted.

    Raises :class:`TargetError` where a user does not exist.
    """
    for user in (old, new):
        if accounts.find(user) is None:
            raise TargetError(f"MySQL has no user {user}")
    has = set(_held(accounts, new))
    lacking = {str(one) for one in _held(accounts, old) if not any(other.covers(one) for other in has)}
    return tuple(sorted(lacking)) + tuple(_tighter(accounts, old, new))


def _held(accounts: Accounts, user: str) -> Iterator[_Held]:
    """What a user holds, by itself and by the roles that its sessions start with."""
    yield from _granted(_lines(accounts.connection, accounts.account(user)))
    active, seen = sorted(accounts.default_roles(user)), set[str]()
    while active:
        role = active.pop()
        if role not in seen:
            seen.add(role)
            grants = list(_granted(_lines(accounts.connection, f"`{role}`")))
            yield from grants
            active += [held.name for held in grants if held.privilege == "role"]


def _lines(connection: Connection, grantee: str) -> list[str]:
    """The grants to a user or role itself: MariaDB lists those of its roles with them."""
    name = _NAME.match(grantee)
    rows = [str(row[0]) for row in connection.run(f"SHOW GRANTS FOR {grantee}")]
    found = [(row, _GRANT.match(row) or _ROLE.match(row)) for row in rows]
    return [row for row, match in found if match and name and _first_name(match["grantee"]) == name[1]]


def _granted(lines: Iterable[str]) -> Iterator[_Held]:
    for line in lines:
        if match := _GRANT.match(line):
            yield from _on_object(match["privileges"], match["object"], line)
        elif match := _ROLE.match(line):
            option = line.endswith("WITH ADMIN OPTION")
            for role in _NAME.findall(match["roles"]):
                yield _Held("role", "", "", role)
                if option:
                    yield _Held("ADMIN OPTION on role", "", "", role)


def _on_object(privileges: str, place: str, line: str) -> Iterator[_Held]:
    if privileges == "PROXY":
        yield _Held("PROXY", "", "", place.replace("`", ""))
        return
    kind, _, path = place.rpartition(" ")
    database, name = (part.strip("`").replace("``", "`") for part in _split(path))
    words = [(word, columns) for word, columns in _PRIVILEGE.findall(privileges) if word != "USAGE"]
    if " WITH " in line and "GRANT OPTION" in line.rpartition(" WITH ")[2]:
        words.append(("GRANT OPTION", ""))
    for word, columns in words:
        for column in columns.split(",") if columns else [""]:
            yield _Held(word, kind, database, name, column.strip(" `"))


def _split(path: str) -> tuple[str, str]:
    """A database and what is in it: `a`.`b`, *.*, `a`.*"""
    if path.startswith("`"):
        end = re.match(r"`(?:[^`]|``)*`", path)
        cut = end.end() if end else len(path)
        return path[:cut], path[cut + 1 :]
    database, _, name = path.partition(".")
    return database, name


def _first_name(grantee: str) -> str:
    match = _NAME.match(grantee)
    return match[1] if match else ""


def _matches(pattern: str, database: str) -> bool:
    """Whether a database's name in a grant, with % and _ as in LIKE, is for this one; a pattern is for itself."""
    return pattern == database or _like(pattern).fullmatch(database.replace("\\", "")) is not None


@cache
def _like(pattern: str) -> re.Pattern[str]:
    wild = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", pattern)
    return re.compile(
        "".join(re.escape(part[-1]) if len(part) > 1 else wild.get(part, re.escape(part)) for part in parts)
    )


def _tighter(accounts: Accounts, old: str, new: str) -> Iterator[str]:
    """The limits that the new user has and the old one has not, or not so tight ones; 0 is none."""
    before, after = (_limits(accounts, user) for user in (old, new))
    for name, was, now in zip(_LIMITS, before, after, strict=True):
        if now and (not was or now < was):
            yield f"{name} {was or 'unlimited'}"


def _limits(accounts: Accounts, user: str) -> tuple[int, ...]:
    ((*limits,),) = accounts.connection.run(
        "SELECT max_questions, max_updates, max_connections, max_user_connections FROM mysql.user"
        " WHERE CONCAT(User, '@', Host) = %s",
        [accounts.key(user)],
    )
    return tuple(int(limit) for limit in limits)
