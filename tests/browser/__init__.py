"""The report in a browser: Debian's Chromium, without a network. `make test-browser` installs it."""
