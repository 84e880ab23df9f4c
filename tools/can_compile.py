"""Exit status 0 if extension modules can be compiled for this interpreter: its compiler and its headers are there."""

import os
import shlex
import shutil
import sys
import sysconfig

compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
header = os.path.join(sysconfig.get_path("include"), "Python.h")
missing = [what for what, there in ((compiler, shutil.which(compiler)), (header, os.path.exists(header))) if not there]
if missing:
    sys.exit(f"Chimney cannot be compiled here and runs as pure Python: no {' and no '.join(missing)}")
