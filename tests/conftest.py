"""Every test runs offline, on one thread, with a cache folder of its own."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import pytest
import torch

# Triton reads this when it is imported; without a GPU its kernels run in the interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(tmp_path_factory.mktemp("halfbyte_cache")))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
