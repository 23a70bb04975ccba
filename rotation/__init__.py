"""Turn secrets: stage, install, test, deploy, watch, promote and retire versions, one idempotent step at a time."""
