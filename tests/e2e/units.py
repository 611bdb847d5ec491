"""The service's exposure by systemd-analyze: at most 2.0, and 1.3 with the drop-in for machines without
a GPU (reliability V8). Exit 77, a skip, where there is no systemd-analyze.

usage: units.py FOLDER-OF-UNITS"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if not shutil.which("systemd-analyze"):
    print("no systemd-analyze here")
    sys.exit(77)
folder = Path(sys.argv[1])
unit = (folder / "kilnd.service").read_text()
drop_in = (folder / "kilnd-cpu.conf").read_text()
failed = 0
with tempfile.TemporaryDirectory() as t:
    for name, text, most in (("gpu", unit, 2.0), ("cpu", unit + "\n" + drop_in, 1.3)):
        path = Path(t) / name / "kilnd.service"
        os.makedirs(path.parent)
        path.write_text(text)
        r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
                           capture_output=True, text=True)
        score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", r.stdout)
        if not score:
            print(f"{name}: {r.stderr.strip()}")
            sys.exit(77)
        good = float(score[1]) <= most
        failed += not good
        print(f"[{'       OK ' if good else '  FAILED  '}] {name} {score[1]}, at most {most}")
sys.exit(1 if failed else 0)
