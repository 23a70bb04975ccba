"""The commands. Every file here IS one: its name is the command's, and nothing registers it.

Each has ``HELP`` (one line), ``arguments(parser)`` and ``run(options) -> exit code``. They are imported to show the
help: what a command works with is imported when it runs.
"""
