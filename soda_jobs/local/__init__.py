"""The local executor: the same commands as in a cluster, started as subprocesses of one machine."""
