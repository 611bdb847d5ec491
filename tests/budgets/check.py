"""Static budgets of the CUDA kernels: registers, spills, stack and instruction counts.

usage: check.py SOURCE_ROOT [--archs 75,80,86,89,90,120] [--files a,b] [--write] [--jobs N]

Compiles each kernel file to PTX and then with `ptxas -v` for each target and compares with
budgets.tsv. A kernel may not take more registers, spill or use more stack than the table says, nor have
other numbers of mma (or wgmma), ldmatrix and cp.async (or bulk tensor copies); a kernel that the table lacks fails too, and where all files
are compiled, a row whose kernel is gone. --write puts what was measured into the table. Exit: 0 within budget, 1 not, 77 (skipped) where there is no nvcc.

The table belongs to one toolkit; with another one, 10% more registers are let through (said so).
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

FILES = ["attention_bf16", "attention_f16", "attention_grad_bf16", "attention_grad_f16", "attention_simple",
         "gemm_bf16", "gemm_f16", "gemm_f16_half", "gemm_simple", "norm", "peak", "pointwise", "rearrange", "reduce", "selftest"]
# for sm_90a; their rows are those of 90
WGMMA_FILES = ["attention_wgmma_bf16", "attention_wgmma_f16", "gemm_wgmma_bf16", "gemm_wgmma_f16", "selftest_wgmma"]
FILES += WGMMA_FILES
COUNTED = {"mma": r"\bmma\.sync|\bwgmma\.mma_async", "ldmatrix": r"\bldmatrix\.", "cp.async": r"\bcp\.async\.(?:c[ag]|bulk\.tensor)"}
COLUMNS = ["registers", "spill_bytes", "stack_bytes"] + list(COUNTED)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("%s\n%s" % (" ".join(command), done.stderr))
    return done.stdout + done.stderr


def demangle(names):
    text = subprocess.run(["c++filt"] + names, capture_output=True, text=True, check=True).stdout
    return [re.sub(r"^void ", "", line).split("(")[0] for line in text.splitlines()]


def measure(root, name, arch):
    """{kernel: [columns]} of one file for one target."""
    target = "%d%s" % (arch, "a" if name in WGMMA_FILES else "")
    with tempfile.TemporaryDirectory(prefix="kiln-budget-") as work:
        ptx = os.path.join(work, "k.ptx")
        run(["nvcc", "-std=c++17", "-O3", "-arch=compute_" + target, "-I", root, "-ptx",
             os.path.join(root, "kernels/cuda", name + ".cu"), "-o", ptx])
        said = run(["ptxas", "-v", "-arch=sm_" + target, ptx, "-o", os.path.join(work, "k.cubin")])
        with open(ptx) as f:
            bodies = re.split(r"\.entry (\w+)\(", f.read())[1:]
    counts = {bodies[i]: [len(re.findall(p, bodies[i + 1])) for p in COUNTED.values()]
              for i in range(0, len(bodies), 2)}
    found = {}
    pattern = (r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, "
               r"(\d+) bytes spill loads\s+ptxas info\s*: Used (\d+) registers")
    for entry, stack, stores, loads, registers in re.findall(pattern, said):
        if entry in counts:
            found[entry] = [int(registers), int(stores) + int(loads), int(stack)] + counts[entry]
    if set(found) != set(counts):
        sys.exit("%s sm_%d: ptxas said nothing about %s" % (name, arch, set(counts) - set(found)))
    entries = sorted(found)
    return {kernel: found[entry] for kernel, entry in zip(demangle(entries), entries)}


def toolkit():
    return re.search(r"release ([\d.]+)", run(["nvcc", "--version"])).group(1)


def read_table(path):
    with open(path) as f:
        lines = [line.rstrip("\n") for line in f]
    made_with = re.search(r"toolkit ([\d.]+)", lines[0]).group(1)
    table = {}
    for line in lines[2:]:
        arch, kernel, *values = line.split("\t")
        table[int(arch), kernel] = [int(v) for v in values]
    return made_with, table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--archs", default="86")
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if not shutil.which("nvcc") or not shutil.which("ptxas"):
        print("skipped: there is no nvcc here")
        return 77
    archs = [int(a) for a in options.archs.split(",")]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "budgets.tsv")
    jobs = [(name, arch) for arch in archs for name in options.files.split(",")
            if arch == 90 or name not in WGMMA_FILES]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: measure(options.root, *job), jobs))
    now = {(arch, kernel): values for (_, arch), result in zip(jobs, results) for kernel, values in result.items()}
    if options.write:
        if os.path.exists(path):
            made_with, old = read_table(path)
            if made_with == toolkit():
                now = {**{key: v for key, v in old.items() if key[0] not in archs or options.files != ",".join(FILES)},
                       **now}
        with open(path, "w") as f:
            f.write("# ptxas of toolkit %s; made by check.py --write\n" % toolkit())
            f.write("\t".join(["arch", "kernel"] + COLUMNS) + "\n")
            for (arch, kernel), values in sorted(now.items()):
                f.write("\t".join([str(arch), kernel] + [str(v) for v in values]) + "\n")
        print("wrote %d lines" % len(now))
        return 0
    made_with, table = read_table(path)
    same = made_with == toolkit()
    if not same:
        print("the table is of toolkit %s, this is %s: 10%% more registers are let through" % (made_with, toolkit()))
    bad = 0
    for key, values in sorted(now.items()):
        budget = table.get(key)
        if not budget:
            print("sm_%d %s is not in the table" % key)
            bad += 1
            continue
        for column, value, most in zip(COLUMNS, values, budget):
            limit = most if same or column != "registers" else most * 1.1
            if value > limit or (column in COUNTED and value != most):
                print("sm_%d %s: %d %s, the table says %d" % (key + (value, column, most)))
                bad += 1
    gone = [key for key in sorted(table) if options.files == ",".join(FILES) and key[0] in archs and key not in now]
    for key in gone:
        print("sm_%d %s is in the table and nowhere else" % key)
    bad += len(gone)
    spills = sum(1 for values in now.values() if values[1])
    print("%d kernels on %d targets, %d over budget, %d with spills" % (len(now) // len(archs), len(archs), bad, spills))
    return 1 if bad else 0


sys.exit(main())
