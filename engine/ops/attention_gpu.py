"""The op `attention` on a GPU; importing this fails where PyTorch was built without CUDA."""

import torch

from .attention_kernels import attention

if not torch.backends.cuda.is_built():
    raise ImportError(f"PyTorch {torch.__version__} was built without CUDA")

__all__ = ["attention"]
