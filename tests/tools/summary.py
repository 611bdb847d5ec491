"""Reads meson's test logs of the given build folders and prints the one closing line.

cmocka programs count case by case (a case that calls skip() is a skip, not a pass); every other
test counts as one, and exit code 77 is a skip. Exits 1 when anything failed or nothing ran."""
import json
import re
import sys
from pathlib import Path

passed = failed = skipped = 0
for folder in sys.argv[1:]:
    log = Path(folder) / "meson-logs" / "testlog.json"
    if not log.exists():
        print(f"{log} is missing: the tests of {folder} did not run")
        failed += 1
        continue
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        test = json.loads(line)
        text = (test.get("stdout") or "") + (test.get("stderr") or "")
        ok = len(re.findall(r"^\[ +OK \]", text, re.M))
        skip = re.findall(r"^\[  SKIPPED \] (.*)$", text, re.M)
        if test["result"] == "SKIP":
            print(f"skipped: {test['name']} ({folder})")
            skipped += 1
        elif test["result"] != "OK":
            print(f"FAILED: {test['name']} ({folder}): {test['result']}")
            passed += ok
            failed += 1
        elif ok or skip:
            names = sorted(set(n for n in skip if ":" not in n and "test(s)" not in n))
            for name in names:
                print(f"skipped: {test['name']}: {name}")
            passed += ok
            skipped += len(names)
        else:
            passed += 1
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(1 if failed or not passed else 0)
