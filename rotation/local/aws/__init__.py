"""AWS, embedded: its API on this machine, for the environment ``local`` and the tests; see api.py."""
