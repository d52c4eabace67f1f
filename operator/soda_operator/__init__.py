"""The Kubernetes operator of DistillationRun. It sees the contract of `soda_jobs` and nothing else of it."""
