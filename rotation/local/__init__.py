"""The embedded environment: real servers on this machine, for the demo and the tests."""
