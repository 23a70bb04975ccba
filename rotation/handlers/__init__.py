"""What runs inside a cloud function: the same engine, asked by the cloud instead of a command line."""
