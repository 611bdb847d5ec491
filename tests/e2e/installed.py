"""`meson install` into an empty folder: the installed programs find each other, the pocket model and the tables.

usage: installed.py BUILD"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main(build):
    with tempfile.TemporaryDirectory(prefix="kiln-e2e-") as place:
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", place], check=True,
                       stdout=subprocess.DEVNULL)
        kiln = next(Path(place).rglob("bin/kiln"))
        prefix = kiln.parent.parent
        for name in ("bin/kilnd", "libexec/kiln/kiln-engine", "libexec/kiln/kiln-decode", "share/kiln/bench_peer.py",
                     "share/kiln/models/pocket/model_index.json", "share/kiln/bridgeData.example.yaml",
                     "share/man/man8/kilnd.8"):
            assert (prefix / name).exists(), f"{name} is not installed"
        for name in ("bpe_simple_vocab_16e6.txt.gz", "safety.tsv"):  # where ./setup could fetch them
            fetched, installed = Path(build) / "data" / name, prefix / "share/kiln" / name
            assert installed.exists() == fetched.exists(), f"{name} is not installed"
            assert not fetched.exists() or installed.read_bytes() == fetched.read_bytes(), f"{name} differs"
        # away from the build folder: nothing but the installed files, and a home of its own
        moved = Path(place) / "elsewhere"
        shutil.move(prefix, moved)
        picture = Path(place) / "vase.png"
        env = {"PATH": os.environ["PATH"], "HOME": place}
        subprocess.run([moved / "bin/kiln", "generate", "--model", "pocket", "--width", "128", "--height", "128",
                        "--steps", "2", "--prompt", "a tall vase with a blue glaze", "-q", "-o", picture],
                       env=env, check=True, timeout=60)
        assert picture.read_bytes()[:4] == b"\x89PNG", "no picture was drawn"
        print(f"{sum(1 for f in moved.rglob('*') if f.is_file())} files installed; the installed kiln draws")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
