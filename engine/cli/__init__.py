"""The command line: `halfbyte demo | inspect | quantize | generate | tune | doctor`."""

from .app import main

__all__ = ["main"]
