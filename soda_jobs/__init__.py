"""soda: one DistillationRun, from a strong code model to a small one."""

__version__ = "0.1.0"
