"""The driver in docs/intermediate-drivers.md does what the page says."""

import re
from pathlib import Path

from chimney.intermediate import IntermediateDriver
from chimney.ndis import Status, bind
from tests.intermediate.rig import Rig, lists

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "intermediate-drivers.md").read_text()


def test_the_driver_of_the_guide():
    names = {}
    driver, stack = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(driver, names)
    exec(stack, names)
    rig = Rig(names["Meter"]("meter"))
    handle, *_ = rig.offload()
    rig.post("send", handle, *lists(2))
    rig.post("receive", handle, *lists())
    [entry] = [e for e in rig.driver.entries if e.connection]
    rig.host.verdict = (Status.SUCCESS, 5)
    rig.target.indicate(entry.handle, *lists())
    assert (rig.driver.sends, rig.driver.bytes) == (1, 5)
    below = Rig(names["Meter"]("below"))
    below.host.binding.close()
    assert names["drivers"]("eth0", below.driver.upper, bind).level == 2


def test_the_hooks_of_the_guide_exist():
    table = PAGE[PAGE.index("| Hook") : PAGE.index("`stop`")]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert {name for name in named if not hasattr(IntermediateDriver, name)} == set()
