"""Prometheus metrics. Labels are bounded: never a run's name."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

RUNS = Gauge("soda_runs", "Runs by state.", ["state"])
RECONCILE = Histogram("soda_reconcile_seconds", "One look at one run, with what it wrote.", buckets=SECONDS)
WAIT = Histogram("soda_event_to_action_seconds", "From a watch event to what was done.", buckets=SECONDS)
ERRORS = Counter("soda_reconcile_errors_total", "Looks that ended in an error, by what kind.", ["kind"])
QUEUE = Gauge("soda_queue_depth", "Runs that wait for a look.")
API_REQUESTS = Counter("soda_api_requests_total", "Requests to the API server.", ["verb", "code"])
STAGES = Counter("soda_stages_total", "Stages that ended.", ["state"])
FAULTS = Counter("soda_faults_total", "Reasons that stages were given for waiting or failing.", ["reason"])
GPU_SECONDS = Counter("soda_gpu_seconds_total", "GPUs times seconds of stages and servers.")
WATCH_MISSED = Counter("soda_watch_missed_total", "Objects that a full list found and the watch had missed.")
WATCH_AGE = Gauge("soda_watch_echo_age_seconds", "Since the operator last saw its own heartbeat in a watch.")
LEADER = Gauge("soda_leader", "1 while this process holds the lease.")
