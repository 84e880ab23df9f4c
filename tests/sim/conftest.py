"""What the tests of the simulator share."""

from chimney import _build

# Compiled classes cannot be patched. Not collected rather than skipped: in continuous integration nothing may be skipped.
collect_ignore = [] if _build.describe() == "pure Python" else ["test_deliberate_bugs.py"]
