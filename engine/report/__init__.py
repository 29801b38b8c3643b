"""What was measured, for people: workloads, rows, a table, a picture."""

from .clock import CallTime, timed_call
from .judge import Judge
from .picture import draw_rows
from .rows import Contender, Row, as_images, judge_rows, run_interleaved
from .table import readable_bytes, rows_table
from .workload import Workload

__all__ = [
    "CallTime",
    "Contender",
    "Judge",
    "Row",
    "Workload",
    "as_images",
    "draw_rows",
    "judge_rows",
    "readable_bytes",
    "rows_table",
    "run_interleaved",
    "timed_call",
]
