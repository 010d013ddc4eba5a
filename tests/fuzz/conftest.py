"""Where there is no atheris (it is made for Linux), its runs are left out; the targets are tried with known inputs all the same."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("atheris") else ["test_short_run.py"]
