"""The command line: `halfbyte demo | inspect | quantize | generate | doctor`."""

from .app import main

__all__ = ["main"]
