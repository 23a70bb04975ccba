"""Build the archive of a function: ``make lambda`` for AWS Lambda, ``make scf`` for Tencent Cloud.

``python -m rotation.handlers.archive --environment staging --out build/lambda.zip`` puts into it

- this package, without what only a command line or the embedded environment uses;
- the manifest of the environment, as synth wrote it;
- the packages that the function imports, in the locked versions. Lambda's runtime brings boto3 by itself;
- for Tencent Cloud the ``bootstrap`` of its custom runtime. The Python itself comes in a layer: SCF's own are too old.

The packages are wheels for the cloud's machines that pip gets by the lock file's hashes. With ``--installed`` they are
those of this Python: for tests, and for a function whose Python and platform are this machine's.

The same content is the same archive, byte for byte: entries are sorted, and have one time and one mode.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from rotation.errors import KeyturnError, UsageError
from rotation.manifest import Manifest, manifest_path

PACKAGE = Path(__file__).parents[1]
LOCK = Path("requirements.lock")
BOOTSTRAP = "bootstrap"  # of a custom runtime, by SCF's name

# What every function imports of keyturn's dependencies; what these need comes along.
_ROOTS = (
    "cronsim",
    "cryptography",
    "javaproperties",
    "jinja2",
    "psycopg",
    "psycopg-binary",
    "pydantic",
    "pydantic-settings",
    "pyrate-limiter",
    "python-dotenv",
    "pyyaml",
    "stamina",
    "tzdata",
)
_LEFT_OUT = ("commands", "local", "report")  # folders of this package
_NEEDLESS = re.compile(r"(^|/)(__pycache__|tests?)/|\.(pyi|pyx|pxd|c|h)$|(^|/)py\.typed$")
# Of all that boto3 knows only what the journal's bucket asks for, where boto3 is not there already.
_OTHER_SERVICES = re.compile(r"^boto3/(data|examples)/|^botocore/data/(?!(s3|sts)/)[^/]+/")
_OF_METADATA = re.compile(r"/(METADATA|licenses/.*|LICEN[CS]E.*|COPYING.*|NOTICE.*)$")

# The C library of each runtime: Amazon Linux 2 has glibc 2.26, Amazon Linux 2023 has 2.34.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
_GLIBC = {"3.11": 26, "3.12": 34, "3.13": 34}
_GLIBC_OF_SCF = 17  # "the standard CentOS 7" of SCF's documentation; newer ones run what was built for it
_MANYLINUX = (34, 31, 28, 27, 26, 24, 17)  # the 2.x for which wheels are built
_ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}

_OLDEST = (1980, 1, 1, 0, 0, 0)  # that a zip can tell
_PIP_SECONDS = 600

Files = Mapping[str, Path]  # by their names in the archive


@dataclass(frozen=True, slots=True)
class Platform:
    """One cloud's functions. ``provided`` are the packages that its runtime has; ``glibc`` gives, for a version of
    Python, the 2.x of its machines' C library. ``files`` are put beside the package."""

    make: str
    roots: tuple[str, ...]
    provided: frozenset[str]
    glibc: Mapping[str, int]
    files: Files


PLATFORMS: Mapping[str, Platform] = {
    "lambda": Platform(
        make="lambda",
        roots=_ROOTS,
        # boto3 with all that it needs is a part of every Python runtime.
        provided=frozenset({"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"}),
        glibc=_GLIBC,
        files={},
    ),
    "scf": Platform(
        make="scf",
        roots=(*_ROOTS, "boto3", "pymysql", "tencentcloud-sdk-python-common"),
        provided=frozenset(),
        glibc=dict.fromkeys(_GLIBC, _GLIBC_OF_SCF),
        files={BOOTSTRAP: Path(__file__).with_name("tencent_scf.sh")},
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        for line in build(Path.cwd(), options):
            print(line)  # noqa: T201
    except KeyturnError as error:
        print(f"error: {error}\n  {error.remedy}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build the archive of a function in a cloud.")
    parser.add_argument("--platform", choices=PLATFORMS, default="lambda", help="whose function (default: lambda)")
    parser.add_argument("--environment", default="staging", help="whose manifest is put in (default: staging)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: build/PLATFORM.zip")
    parser.add_argument("--python", choices=_GLIBC, default="3.12", help="the runtime's version (default: 3.12)")
    parser.add_argument("--architecture", choices=_ARCHITECTURES, default="x86_64")
    parser.add_argument("--installed", action="store_true", help="take the packages of this Python instead of wheels")
    return parser


def build(project: Path, options: argparse.Namespace) -> Iterator[str]:
    """Write the archive, and say what is in it. Raises StaleManifest for a manifest that is older than the stacks."""
    Manifest.load(project, options.environment)
    manifest = manifest_path(project, options.environment)
    platform = PLATFORMS[options.platform]
    out = options.out or Path("build") / f"{platform.make}.zip"
    own = {manifest.relative_to(project).as_posix(): manifest, **_package(), **platform.files}
    if options.installed:
        yield f"packages of this Python ({sys.version_info.major}.{sys.version_info.minor}, {sys.platform})"
        yield from _write(out, {**own, **_files_of(_needed(distributions(), platform))})
        return
    yield f"wheels for Python {options.python} on {options.architecture}"
    with tempfile.TemporaryDirectory(prefix="keyturn-") as folder:
        _install(project, Path(folder), options)
        yield from _write(out, {**own, **_files_of(distributions(path=[folder]))})


# What goes in


def _package() -> Files:
    """This package's modules."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] not in _LEFT_OUT and path != Path(__file__) and "__pycache__" not in parts:
            found["/".join((PACKAGE.name, *parts))] = path
    return found


def _needed(installed: Iterable[Distribution], platform: Platform) -> list[Distribution]:
    """The roots, and all that they need."""
    known = {_canonical(distribution.name): distribution for distribution in installed}
    found: dict[str, Distribution] = {}
    left = list(platform.roots)
    while left:
        name = left.pop()
        if name in found or name in platform.provided or name not in known:
            continue
        found[name] = known[name]
        left += _requirements(known[name])
    if missing := set(platform.roots) - set(found):
        raise UsageError(f"these packages are not installed: {', '.join(sorted(missing))}", "Run `make setup`.")
    return list(found.values())


def _requirements(distribution: Distribution) -> Iterator[str]:
    """The names of what a package needs without its extras. What it needs on other platforms is not installed here."""
    for requirement in distribution.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and "extra ==" not in requirement:
            yield _canonical(name[0])


def _files_of(packages: Iterable[Distribution]) -> Files:
    """The files of these packages that are needed at run time, without what an installer notes about itself."""
    found = {}
    for package in packages:
        for file in package.files or ():
            name = file.as_posix()
            of_metadata = ".dist-info/" in name
            needless = _NEEDLESS.search(name) or _OTHER_SERVICES.search(name)
            if name.startswith("..") or needless or (of_metadata and not _OF_METADATA.search(name)):
                continue
            found[name] = Path(str(package.locate_file(file)))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Where wheels come from


def _install(project: Path, folder: Path, options: argparse.Namespace) -> None:
    """Let pip put the locked wheels for the cloud's machines into a folder."""
    platform = PLATFORMS[options.platform]
    wanted = {_canonical(package.name) for package in _needed(distributions(), platform)}
    lock = "".join(_locked((project / LOCK).read_text(encoding="utf-8"), wanted))
    (folder / LOCK).write_text(lock, encoding="utf-8")
    machine, newest = _ARCHITECTURES[options.architecture], platform.glibc[options.python]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in _MANYLINUX if minor <= newest]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--require-hashes", "--only-binary=:all:", "--python-version", options.python]
    command += [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}")]
    command += ["--target", str(folder), "-r", str(folder / LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    (folder / LOCK).unlink()
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["it gave no reason"]
        raise KeyturnError(
            f"pip cannot get the function's packages: {said[0].removeprefix('ERROR: ')}",
            "Check that the package index can be reached, and has wheels for that Python.",
        )


def _locked(lock: str, names: Iterable[str]) -> Iterator[str]:
    """The lines of a lock file that pin these packages, with their hashes."""
    wanted = set(names)
    taken = False
    for line in lock.splitlines(keepends=True):
        if pinned := re.match(r"([A-Za-z0-9._-]+)(\[.*\])?==", line):
            taken = _canonical(pinned[1]) in wanted
        if taken:
            yield line


# Writing


def _write(out: Path, files: Files) -> Iterator[str]:
    out.parent.mkdir(parents=True, exist_ok=True)
    unzipped: Counter[str] = Counter()
    partly = out.with_suffix(".partly")
    with zipfile.ZipFile(partly, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _OLDEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is built: modes are read by it
            entry.external_attr = (0o755 if name == BOOTSTRAP else 0o644) << 16
            content = path.read_bytes()
            archive.writestr(entry, content)
            unzipped[name.partition("/")[0]] += len(content)
    partly.replace(out)
    yield f"{out}: {_size(out.stat().st_size)}, unzipped {_size(unzipped.total())}, {len(files)} files"
    yield f"largest: {', '.join(f'{name} {_size(size)}' for name, size in unzipped.most_common(5))}"
    yield f"SHA-256 {hashlib.sha256(out.read_bytes()).hexdigest()}"


def _size(octets: int) -> str:
    return f"{octets / 1_000_000:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
