"""Every error that a user can meet. Each says what happened and, in ``remedy``, what to do next.

KeyturnError
├── UsageError           the command line or the settings ask for something that is not there
├── DeclarationError     the stacks, the manifest, a template or the pins are wrong
│   └── StaleManifest    the manifest is older than the stacks
├── StoreError           a secret store refused
│   ├── Conflict         the compare-and-set lost: someone else moved first; observe again
│   ├── GenerationSpent  that generation was used and dropped before; take a higher one
│   └── LimitExceeded    a name or a value is over the store's limits
├── TargetError          a target refused
├── KeyServiceError      a key service refused
├── Unavailable          a server cannot be reached or is overloaded: worth another try
│   └── OutcomeUnknown   nobody can tell whether a request was applied, or will be yet
├── Unauthorized         a server does not accept the runner's own credentials
├── ClockSkew            this machine's clock is far from the server's
├── LeaseHeld            another runner works on this secret
├── JournalError         the journal cannot be read or written
├── DeployError          synth, plan or apply failed
│   ├── GuardRefused     the plan changes more than it may
│   └── StalePlan        the state moved since the plan was made
└── LocalError           the embedded environment cannot start or stop
"""

from __future__ import annotations


class KeyturnError(Exception):
    """Base of all, on one line, whatever other program's words it quotes. ``remedy`` is what to do next."""

    remedy = "Run again with --debug and look at the cause."

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(" ".join(line.strip() for line in what.splitlines()))
        if remedy is not None:
            self.remedy = remedy


class UsageError(KeyturnError):
    remedy = "See `keyturn --help`."


class DeclarationError(KeyturnError):
    remedy = "Correct the declaration and run `cdktf synth`."


class StaleManifest(DeclarationError):
    remedy = "Run `cdktf synth`, then this command again."


class StoreError(KeyturnError):
    remedy = "Check the secret in its store, then run the command again: it resumes."


class Conflict(StoreError):
    remedy = "Run the command again: it starts from what is there now."


class GenerationSpent(StoreError):
    """``highest`` is the highest generation that the store has ever held for this secret."""

    def __init__(self, what: str, highest: int) -> None:
        super().__init__(what)
        self.highest = highest


class LimitExceeded(StoreError):
    remedy = "Shorten the name or the value."


class TargetError(KeyturnError):
    remedy = "Check the target and its administrator's rights, then run the command again: it resumes."


class KeyServiceError(KeyturnError):
    remedy = "Check the key and the runner's rights on it, then run the command again: it resumes."


class Unavailable(KeyturnError):
    """``retry_after`` is how many seconds the server asked to be left alone for; None where it did not say."""

    remedy = "Check that the server runs and can be reached from here, then run the command again: it resumes."

    def __init__(self, what: str, remedy: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(what, remedy)
        self.retry_after = retry_after


class OutcomeUnknown(Unavailable):
    """The answer was lost. What may not be done twice is looked at before it is tried again."""


class Unauthorized(KeyturnError):
    remedy = "Check the runner's credentials and its role, then run the command again: it resumes."


class ClockSkew(KeyturnError):
    remedy = "Set this machine's clock (NTP), then run the command again."


class LeaseHeld(KeyturnError):
    remedy = "Wait for the other runner; if it died, its lease ends by itself."


class JournalError(KeyturnError):
    remedy = "Check the journal's folder (free space, permissions); keyturn can also go on with a new, empty journal."


class DeployError(KeyturnError):
    remedy = "Correct the cause and run the command again: it resumes."


class GuardRefused(DeployError):
    remedy = "Deploy the other changes by themselves first (review them with `cdktf diff`), then run the command again."


class StalePlan(DeployError):
    remedy = "Run the command again: it plans anew."


class LocalError(KeyturnError):
    remedy = "Read the logs in .keyturn/local/logs; `keyturn local down` and `keyturn local up` start afresh."
