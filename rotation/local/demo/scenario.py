"""The parts of the demo, each of which ends with what it promised."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import boto3

from rotation.local import environment, providers
from rotation.local.demo.database_faults import DatabaseFaults
from rotation.local.demo.leaks import Leaks
from rotation.local.demo.load import Load, Probe
from rotation.local.demo.sealed import Sealed
from rotation.local.embedded import embedded
from rotation.model import Ring

SECRET = "orders/db"  # noqa: S105  # a secret's name
TOKEN = "orders/api-token"  # noqa: S105  # another one's
KEY = "orders"
LIMIT = 600  # seconds that one command may take


class Broken(Exception):
    """Something was not as promised."""


@dataclass
class Demo:
    """One run. ``transcript`` keeps all that the commands printed, to be searched for values at the end."""

    project: Path
    environment: str
    started: float = field(default_factory=time.monotonic)
    transcript: list[str] = field(default_factory=list)

    # Telling

    def title(self, text: str) -> None:
        print(f"\n── {time.monotonic() - self.started:5.0f} s ── {text}", flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def expect(self, held: bool, promise: str) -> None:
        print(f"   {'✓' if held else '✗'} {promise}", flush=True)
        if not held:
            raise Broken(promise)

    # Commands

    def keyturn(self, *arguments: str, expect: int | Sequence[int] = 0) -> str:
        """Run a command as a user would, show what it prints, and check its exit code."""
        expected = (expect,) if isinstance(expect, int) else tuple(expect)
        self.say(f"$ keyturn {' '.join(arguments)}")
        with self.start(*arguments) as child:
            text = self._follow(child)
            code = child.wait(LIMIT)
        if code not in expected:
            raise Broken(f"keyturn {' '.join(arguments)} ended with {code}, not {' or '.join(map(str, expected))}")
        if arguments[0] == "rotate":
            self._leaks.learn()  # now, for not every store keeps what is retired
        return text

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "rotation", *arguments]
        return subprocess.Popen(argv, cwd=self.project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _follow(self, child: subprocess.Popen[str], until: Callable[[str], bool] = lambda _: False) -> str:
        lines: list[str] = []
        for line in child.stdout or ():
            print(f"  {line}", end="", flush=True)
            lines.append(line)
            if until(line):
                break
        self.transcript += lines
        return "".join(lines)

    def cdktf_deploy(self) -> None:
        stacks = self._stacks()
        argv = ["cdktf", "deploy", *stacks, "--auto-approve", "--skip-provider-lock"]
        self.say(f"$ {' '.join(argv)}")
        done = subprocess.run(
            argv,
            cwd=self.project,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        self.transcript += [done.stdout, done.stderr]
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
            raise Broken(f"cdktf deploy ended with {done.returncode}")
        self.say(f"  deployed: {', '.join(stacks)}")

    @cached_property
    def _leaks(self) -> Leaks:
        """Once the environment is declared. It knows every value that its store held after a rotation."""
        return Leaks(self.project, self.environment)

    def _stacks(self) -> tuple[str, ...]:
        return tuple(f"{part}-{self.environment}" for part in embedded(self.environment).deployed)

    # The parts

    def set_up(self) -> None:
        servers = ", ".join(filter(None, ("AWS API", "PostgreSQL", embedded(self.environment).also)))
        self.title(f"the embedded environment: {servers}, the application in two rings")
        os.environ["KEYTURN_ENVIRONMENT"] = self.environment
        self.say(f"$ export KEYTURN_ENVIRONMENT={self.environment}")
        self.keyturn("local", "up")
        os.environ.update(environment.environment_variables(self.project) | providers.tool_environment(self.project))

    def declare(self) -> None:
        self.title("the stacks, by cdktf deploy")
        self.cdktf_deploy()

    def first_values(self, load: Load) -> None:
        self.title("first values")
        self.keyturn("rotate", "--initialize")
        self.expect(load.await_traffic(), "both rings serve queries")

    def good_rotation(self, load: Load) -> None:
        self.title("(a) a rotation: canary first, then everyone, then promoted")
        failed = load.failed()
        before = load.generation(Ring.STABLE, SECRET)
        self.keyturn("plan", SECRET, expect=2)
        self.keyturn("rotate", SECRET)
        after = load.generation(Ring.STABLE, SECRET)
        self.expect(after > before, f"the application went from generation {before} to {after} without a restart")
        self.expect(load.failed() == failed, f"no query failed ({load.queries()} so far)")

    def missing_grant(self, load: Load, faults: DatabaseFaults) -> None:
        self.title("(b) the new login lacks a grant that somebody gave to the old one by hand")
        with faults.grant_to_one_user_only():
            before, failed = load.pins(SECRET), load.failed()
            text = self.keyturn("rotate", SECRET, expect=4)
        self.expect("lacks SELECT" in text, "the privilege test names the missing grant")
        self.expect(load.pins(SECRET) == before, "no ring ever saw the candidate")
        self.expect(load.failed() == failed, "no query failed")

    def bad_under_the_application(self, load: Load, faults: DatabaseFaults) -> None:
        self.title(f"(c) the new login breaks only under the application: {faults.rule} names the old one")
        with faults.policy_for_one_user():
            before = load.generation(Ring.STABLE, SECRET)
            failed = load.failed(Ring.STABLE)
            text = self.keyturn("rotate", SECRET, expect=4)
        self.expect("reject canary" in text, "the canary's signals condemn that generation")
        self.expect(load.await_generation(Ring.CANARY, SECRET, before), f"the canary is back at generation {before}")
        self.expect(load.failed(Ring.STABLE) == failed, "the stable ring was never touched: none of its queries failed")

    def killed(self, load: Load) -> None:
        self.title("(d) the runner is killed in mid-rotation, and run again")
        failed = load.failed()
        self.say(f"$ keyturn rotate {SECRET}")
        with self.start("rotate", SECRET) as child:
            text = self._follow(child, until=lambda line: "deploy canary" in line)
            os.kill(child.pid, signal.SIGKILL)
            child.wait(LIMIT)
        self.say("  … killed with SIGKILL")
        self.keyturn("rotate", SECRET)
        staged = int(re.findall(r"generation (\d+) is in the store", text)[-1])
        self.expect(load.generation(Ring.STABLE, SECRET) == staged, f"the next run finished that rotation, to {staged}")
        self.expect(load.failed() == failed, "no query failed")

    def key_rotation(self, load: Load) -> None:
        self.title("(f) the key gets new material; every sealed value gets a new envelope, and stays the same value")
        failed = load.failed()
        sealed = Sealed(self.project, self.environment, KEY)
        before = sealed.look()
        self.keyturn("rekey", KEY)
        after = sealed.look()
        self.expect(
            sealed.same_values_in_other_envelopes(before, after),
            f"the same value of the same generation, wrapped anew: {', '.join(after)}",
        )
        if sealed.ends_old_material:
            self._raise_minimum()
            self.expect(not any(map(sealed.opens, before.values())), "no old envelope opens any more")
            self.expect(all(map(sealed.opens, after.values())), "every new one does")
        self.expect(load.await_traffic() and load.failed() == failed, "no query failed")

    def _raise_minimum(self) -> None:
        """As soon as it may be: the consumers get some time to take the new envelopes."""
        for _ in range(10):
            text = self.keyturn("rekey", KEY, "--raise-minimum", expect=(0, 3))
            if "unwraps nothing any more" in text:
                return
            time.sleep(1)
        raise Broken("the key still unwraps with its old material")

    def retire(self) -> None:
        self.title("(e) the old login is retired, on evidence")
        self.keyturn("retire", "--wait", "0", expect=(0, 3))
        self.keyturn("retire")

    def drift(self, load: Load, faults: DatabaseFaults) -> None:
        self.title("(g) drift of each of the four kinds: found, put right, and gone")
        failed = load.failed()
        planted = self._plant_drift(faults)
        text = self.keyturn("drift", expect=2)
        for what, address in planted.items():
            self.expect(f"  {address} " in text, f"found: {what}")
        text = self.keyturn("drift", "--fix")
        self.expect(all(f"fixed   {address}: " in text for address in planted.values()), "each of them is put right")
        self.keyturn("drift")
        self.expect(load.await_traffic() and load.failed() == failed, "no query failed")

    def _plant_drift(self, faults: DatabaseFaults) -> dict[str, str]:
        """Four mishaps, each with the address of what it leaves behind."""
        key = "orders-api/stable.yaml"
        rendered = f"stacks/config/rendered/{self.environment}/{{}}/orders-api.yaml"
        text = (self.project / rendered.format(Ring.STABLE)).read_text(encoding="utf-8")
        bucket = environment.config_bucket(self.environment)
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=f"{text}# by hand\n".encode())
        self.say(f"$ keyturn rotate {TOKEN}")
        with self.start("rotate", TOKEN) as child:
            self._follow(child, until=lambda line: "is in the store, pending" in line)
            os.kill(child.pid, signal.SIGKILL)
        self.say("  … killed with SIGKILL")
        self._leaks.learn()
        login = faults.let_in_again()
        edited = self.project / rendered.format(Ring.CANARY)
        edited.write_text(f"{edited.read_text(encoding='utf-8')}# by hand\n", encoding="utf-8")
        return {
            "declared: the configuration object was overwritten in its bucket": (
                f"declared:application-{self.environment}:aws_s3_bucket_object.config-orders-api-stable"
            ),
            "stored: a dead run's pending generation": f"stored:{TOKEN}:pending",
            f"live: the retired login {login} was let in again": f"live:{SECRET}:leftover-{login}",
            "consumed: a rendered file was edited by hand": f"consumed:{rendered.format(Ring.CANARY)}:rendered",
        }

    def account(self, probe: Probe, load: Load) -> None:
        self.title("where things stand")
        self.keyturn("status")
        self.keyturn("render", "--check")
        print()
        self.keyturn("audit", SECRET)
        self.expect(probe.failed == 0, f"{probe.logins} logins with the current value, all along: none was refused")
        self.expect(load.queries() > 0, f"{load.queries()} queries under load, {load.failed()} failed: those of (c)")

    def leaks(self) -> None:
        self.title("no value is anywhere but in its store")
        self.keyturn("plan", SECRET, "--out", ".keyturn/demo.plan.json", expect=2)
        report = self._leaks.search(self.transcript)
        (self.project / ".keyturn" / "demo.plan.json").unlink()
        self.expect(not report.found, f"{report.values} values looked for in {report.places} places: {report.kinds}")
        for place in report.found:
            print(f"     a value is in {place}")
