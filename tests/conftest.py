"""Every test runs offline, on one thread, with a cache folder of its own."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(tmp_path_factory.mktemp("halfbyte_cache")))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
