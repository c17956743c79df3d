"""The service as anybody meets it, on whatever it runs: one suite, for every target of `scripts/run`.

scripts/run --host --check      the process on this machine
scripts/run --check             the quick ARM machine
scripts/run --systemd --check   the ARM machine with systemd
scripts/run --image PATH --check

Tests leave the service running and its configuration as they found it.
"""
