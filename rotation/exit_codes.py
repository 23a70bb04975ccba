"""What a command's exit code says."""

DONE = 0
FAILED = 1  # an error: two lines say what happened and what to do
CHANGES = 2  # there is something to do, or something is stale
WAITING = 3  # says for what, and until when
BLOCKED = 4  # rolled back, refused, or blocked: needs a person
INTERRUPTED = 130
