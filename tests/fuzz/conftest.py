"""Where there is no atheris (it is made for Linux) its runs are left out; known inputs are tried all the same."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("atheris") else ["test_short_run.py"]
