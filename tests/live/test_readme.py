"""The README's example, word for word."""

import re
import socket
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs(lab, helpers, tmp_path):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    server = lab.host.popen([sys.executable, "-m", "http.server", "8000", "--directory", str(tmp_path)])

    def listening():
        with lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(("127.0.0.1", 8000)) == 0

    try:
        helpers.wait_until(listening, "the server")
        output = lab.host.run([sys.executable, "-c", code], timeout=30)
    finally:
        server.terminate()
        server.wait()
    assert "HTTP/1.0 200 OK" in output and "offloads=1, uploads=1" in output
