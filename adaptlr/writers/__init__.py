"""Where decisions go: TensorBoard, JSON lines, memory."""

from adaptlr.writers.base import MemoryWriter, MultiWriter, Record, Writer
from adaptlr.writers.jsonl import JSONLinesWriter
from adaptlr.writers.tensorboard import TensorBoardWriter

__all__ = [
    "JSONLinesWriter",
    "MemoryWriter",
    "MultiWriter",
    "Record",
    "TensorBoardWriter",
    "Writer",
]
