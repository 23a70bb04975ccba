"""What keyturn costs, measured: `make bench`, or `python -m tests.bench --json`."""
