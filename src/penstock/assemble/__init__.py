"""Settings into running processes: the only room that names concrete classes."""

from penstock.assemble import process
from penstock.assemble.process import DEMO, Inside, ReadyReport, RunOptions
from penstock.assemble.workers import run_workers
from penstock.config.reader import Reader
from penstock.config.settings import Settings

__all__ = ["DEMO", "Inside", "ReadyReport", "RunOptions", "run"]


def run(settings: Settings, reload: Reader, options: RunOptions) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        PenstockError: it could not start; the message says why.
    """
    if options.workers > 1 and options.inside is None:
        return run_workers(settings, reload, options)
    return process.run(settings, reload, options)
