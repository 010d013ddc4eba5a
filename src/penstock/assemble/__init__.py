"""Settings into running processes: the only room that names concrete classes."""

from penstock.assemble.process import Inside, ReadyReport, RunOptions, run

__all__ = ["Inside", "ReadyReport", "RunOptions", "run"]
