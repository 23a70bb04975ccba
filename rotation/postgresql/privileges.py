"""What one PostgreSQL role may do and another may not, by the server's own functions, in one query.

Compared are the effective privileges, those inherited from other roles included, on everything in the database and on
the databases, tablespaces and parameters of the server; memberships; attributes; settings (``ALTER ROLE … SET``, by
name, as a value may be secret); privileges on future objects; and ownership.

Not seen: row-level security policies that name a user, what a function or view decides by ``session_user``,
pg_hba.conf, large objects, and what other databases contain. Only use shows those: that is what the canary is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from rotation.errors import TargetError
from rotation.postgresql import Connection


@dataclass(frozen=True, slots=True)
class _Objects:
    """One kind of object: where they are listed, how one is called, and the function that tells who may do what."""

    kind: str
    source: str
    name: str
    function: str
    privileges: tuple[str, ...]
    key: str = "oid"


_TABLES = "pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'"
_SEQUENCES = "pg_class WHERE relkind = 'S' AND relpersistence <> 't'"
_SCHEMAS = "pg_namespace WHERE nspname !~ '^pg_(temp|toast)'"
_COLUMNS = "pg_attribute WHERE attacl IS NOT NULL AND NOT attisdropped"  # others have what their table has
_TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def _kinds(version: int) -> Iterator[_Objects]:
    privileges: tuple[str, ...]
    since_17 = ("MAINTAIN",) if version >= 170000 else ()
    yield _Objects("table", _TABLES, "oid::regclass::text", "has_table_privilege", _TABLE_PRIVILEGES + since_17)
    column = "attrelid::regclass || '.' || quote_ident(attname)"
    privileges = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
    yield _Objects("column", _COLUMNS, column, "has_column_privilege", privileges, "attrelid, attnum")
    privileges = ("USAGE", "SELECT", "UPDATE")
    yield _Objects("sequence", _SEQUENCES, "oid::regclass::text", "has_sequence_privilege", privileges)
    yield _Objects("function", "pg_proc", "oid::regprocedure::text", "has_function_privilege", ("EXECUTE",))
    yield _Objects("schema", _SCHEMAS, "quote_ident(nspname)", "has_schema_privilege", ("USAGE", "CREATE"))
    privileges = ("CONNECT", "CREATE", "TEMPORARY")
    yield _Objects("database", "pg_database", "quote_ident(datname)", "has_database_privilege", privileges)
    yield _Objects("type", "pg_type WHERE typelem = 0", "oid::regtype::text", "has_type_privilege", ("USAGE",))
    yield _Objects("language", "pg_language", "quote_ident(lanname)", "has_language_privilege", ("USAGE",))
    wrapper = "pg_foreign_data_wrapper"
    yield _Objects("wrapper", wrapper, "quote_ident(fdwname)", "has_foreign_data_wrapper_privilege", ("USAGE",))
    yield _Objects("server", "pg_foreign_server", "quote_ident(srvname)", "has_server_privilege", ("USAGE",))
    yield _Objects("tablespace", "pg_tablespace", "quote_ident(spcname)", "has_tablespace_privilege", ("CREATE",))
    if version >= 150000:
        privileges = ("SET", "ALTER SYSTEM")
        yield _Objects("parameter", "pg_parameter_acl", "parname", "has_parameter_privilege", privileges, "parname")


_HELD = """
SELECT privilege || {of_kind} || {name}
FROM who CROSS JOIN unnest({privileges}::text[]) AS privilege CROSS JOIN (SELECT * FROM {source}) AS object
WHERE {function}(who.old, {key}, privilege) AND NOT {function}(who.new, {key}, privilege)"""

_MEMBERSHIPS = """
SELECT case_.label || quote_ident(role.rolname)
FROM who CROSS JOIN pg_roles AS role CROSS JOIN (VALUES
    ('USAGE', 'inherited privileges of role '),
    ({set_role}, 'SET ROLE to role '),
    ('MEMBER WITH ADMIN OPTION', 'ADMIN OPTION on role ')) AS case_ (option, label)
WHERE role.oid NOT IN (who.old, who.new)
    AND pg_has_role(who.old, role.oid, case_.option) AND NOT pg_has_role(who.new, role.oid, case_.option)"""

_SETTINGS = """
SELECT 'setting ' || split_part(held.entry, '=', 1)
FROM who
JOIN pg_db_role_setting AS a ON a.setrole = who.old
    AND a.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
CROSS JOIN unnest(a.setconfig) AS held (entry)
WHERE held.entry NOT LIKE 'role=%' AND NOT EXISTS (
    SELECT FROM pg_db_role_setting AS b
    WHERE b.setrole = who.new AND b.setdatabase = a.setdatabase AND held.entry = ANY (b.setconfig))"""

_FUTURE = """
SELECT granted.privilege_type || ' on future '
    || CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
       WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE 'large objects' END
    || ' of ' || defaclrole::regrole || coalesce(' in schema ' || nullif(defaclnamespace, 0)::regnamespace, '')
FROM who CROSS JOIN pg_default_acl CROSS JOIN aclexplode(defaclacl) AS granted
WHERE granted.grantee <> 0
    AND pg_has_role(who.old, granted.grantee, 'USAGE') AND NOT pg_has_role(who.new, granted.grantee, 'USAGE')"""

_OWNERSHIP = """
SELECT 'ownership of ' || pg_describe_object(classid, objid, objsubid)
FROM who JOIN pg_shdepend ON refclassid = 'pg_authid'::regclass AND refobjid = who.old AND deptype = 'o'
    AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
WHERE NOT pg_has_role(who.new, who.old, 'USAGE')"""

_ATTRIBUTES = """
SELECT attribute.label
FROM who JOIN pg_roles AS a ON a.oid = who.old JOIN pg_roles AS b ON b.oid = who.new CROSS JOIN LATERAL (VALUES
    ('SUPERUSER', a.rolsuper AND NOT b.rolsuper),
    ('CREATEDB', a.rolcreatedb AND NOT b.rolcreatedb),
    ('CREATEROLE', a.rolcreaterole AND NOT b.rolcreaterole),
    ('REPLICATION', a.rolreplication AND NOT b.rolreplication),
    ('BYPASSRLS', a.rolbypassrls AND NOT b.rolbypassrls),
    ('INHERIT', a.rolinherit AND NOT b.rolinherit),
    ('CONNECTION LIMIT ' || a.rolconnlimit, b.rolconnlimit >= 0
        AND (a.rolconnlimit < 0 OR a.rolconnlimit > b.rolconnlimit)),
    ('VALID UNTIL ' || coalesce(a.rolvaliduntil::text, 'infinity'),
        coalesce(b.rolvaliduntil, 'infinity') < coalesce(a.rolvaliduntil, 'infinity'))) AS attribute (label, missing)
WHERE attribute.missing"""


def missing(connection: Connection, old: str, new: str) -> tuple[str, ...]:
    """What the role ``old`` may do and ``new`` may not, in the connection's database: "SELECT on table public.audit".

    A superuser may do everything: if only ``old`` is one, its attributes alone are compared. Raises
    :class:`TargetError` where a role does not exist. The connection's search_path must be empty, for full names.
    """
    roles = {"old": _oid(connection, old), "new": _oid(connection, new)}
    who = sql.SQL("WITH who AS (SELECT {old}::oid AS old, {new}::oid AS new)").format(**roles)
    attributes = [line for (line,) in connection.execute(who + sql.SQL(_ATTRIBUTES))]
    if "SUPERUSER" in attributes:
        return tuple(attributes)
    query = sql.SQL(" UNION ").join(_parts(connection.info.server_version))
    return tuple(attributes) + tuple(sorted(line for (line,) in connection.execute(who + query)))


def _parts(version: int) -> Iterator[sql.Composable]:
    for objects in _kinds(version):
        privileges = [p + option for p in objects.privileges for option in ("", " WITH GRANT OPTION")]
        yield sql.SQL(_HELD).format(
            of_kind=sql.Literal(f" on {objects.kind} "),
            name=sql.SQL(objects.name),
            privileges=sql.Literal(privileges),
            source=sql.SQL(objects.source),
            function=sql.SQL(objects.function),
            key=sql.SQL(objects.key),
        )
    yield sql.SQL(_MEMBERSHIPS).format(set_role=sql.Literal("SET" if version >= 160000 else "MEMBER"))
    yield from map(sql.SQL, (_SETTINGS, _FUTURE, _OWNERSHIP))


def _oid(connection: Connection, role: str) -> int:
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    if row is None:
        raise TargetError(f"PostgreSQL has no user {role}")
    oid: int = row[0]
    return oid
