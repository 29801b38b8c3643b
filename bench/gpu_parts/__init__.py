"""The parts of `python bench/gpu.py`, one file each: what it measures, and the record that all of them write."""
