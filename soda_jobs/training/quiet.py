"""Keeps the libraries from talking: standard error is for our events."""

from __future__ import annotations

import os

import torch
from transformers.utils import logging as transformers_logging


def silence() -> None:
    """No progress bars; and DeepSpeed, which accelerate loads to look at a model, need not guess the device."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers_logging.disable_progress_bar()
