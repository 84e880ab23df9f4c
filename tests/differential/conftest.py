"""The wire that all examples share, as root or in an unprivileged user namespace."""

import contextlib

import pytest

from chimney.lab.namespace import can_make_namespaces, enter_user_namespace
from tests.differential.peer import Wire

if not can_make_namespaces():
    with contextlib.suppress(OSError):
        enter_user_namespace()


@pytest.fixture(scope="session")
def wire():
    """A wire to the kernel."""
    if not can_make_namespaces():
        pytest.skip("network namespaces need root, or user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
    made = Wire()
    yield made
    made.close()
