"""What the tests of the simulator share."""

from chimney import _build

# Compiled classes cannot be patched. Not collected, since skipping is forbidden in continuous integration.
collect_ignore = [] if _build.describe() == "pure Python" else ["test_deliberate_bugs.py"]
