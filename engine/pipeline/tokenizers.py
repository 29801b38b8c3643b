"""A tokenizer of its own for every thread.

A fast tokenizer keeps the padding and truncation of the call in progress in itself, so two threads on one object get each other's
lengths. The thread that accelerated the pipeline keeps the user's object; any other gets a copy, made once.
"""

from __future__ import annotations

import copy
import threading
from typing import Any


class ThreadTokenizers:
    """Copies belong to their thread and go with it."""

    def __init__(self) -> None:
        self.home = threading.get_ident()
        self.copies = threading.local()

    def of(self, pipe: Any) -> dict[str, Any]:
        """Component name -> tokenizer for the calling thread; empty on the home thread."""
        if threading.get_ident() == self.home:
            return {}
        from transformers import PreTrainedTokenizerBase

        found = {name: part for name, part in vars(pipe).items() if isinstance(part, PreTrainedTokenizerBase)}
        return {name: self._copy(name, tokenizer) for name, tokenizer in found.items()}

    def _copy(self, name: str, tokenizer: Any) -> Any:
        kept = vars(self.copies).get(name)
        # added tokens (textual inversion) make the copy stale
        if kept is None or kept[0] is not tokenizer or len(kept[1]) != len(tokenizer):
            kept = (tokenizer, copy.deepcopy(tokenizer))
            vars(self.copies)[name] = kept
        return kept[1]
