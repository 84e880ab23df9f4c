"""Coverage-guided fuzzing of everything that reads what a peer has sent: `make fuzz`, and docs/fuzzing.md.

Each target is a module with a function `run(data)`, which raises if something is wrong and needs nothing but the
package: `tests/fuzz` replays the corpus with it on both builds. Only `python -m fuzz` needs atheris.
"""

TARGETS = ("options", "frames", "connection")
