"""The demo: real rotations of a database password under load, two that undo themselves, and one that is killed.

Everything it does goes through the commands that a user would type; it only plants the faults and counts. It ends with
a non-zero exit code when anything is not as promised. ``python -m rotation.local.demo local-vault`` is the same in
another of the embedded environments (rotation/local/embedded), with the parts that are that one's own.
"""
