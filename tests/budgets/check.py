"""Static budgets of the CUDA kernels: registers, spills, stack and instruction counts.

usage: check.py SOURCE_ROOT [--archs 75,80,86,89,90,120] [--files a,b] [--write] [--rows] [--jobs N]

Compiles each kernel file to PTX and then with `ptxas -v` for each target and compares with
budgets.tsv. A kernel may not take more registers, spill or use more stack than the table says, nor have
other numbers of mma (or wgmma), ldmatrix and cp.async (or bulk tensor copies). A kernel that the table lacks
fails, and so does a row whose kernel is gone. --write puts what was measured in place of the rows of those files
and targets.

First of all, with nvcc or without, the table itself must be whole: for every file and every target the rows
that the file has on the other targets. What has not been measured yet stands in the table as
`ARCH FILE unmeasured`; every run says so and counts it, and a compiled one may not spill. Rows beside such a
line are of older sources. --rows: this alone,
nothing is compiled.
Exit: 0 within budget and whole, 1 not, 77 (skipped) where there is no nvcc to compile with.

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
TARGETS = [75, 80, 86, 89, 90, 120]
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
    """toolkit, {(arch, file, kernel): [columns]}, {(arch, file)} unmeasured"""
    with open(path) as f:
        lines = [line.rstrip("\n") for line in f]
    made_with = re.search(r"toolkit ([\d.]+)", lines[0]).group(1)
    table, holes = {}, set()
    for line in lines[2:]:
        arch, name, kernel, *values = line.split("\t")
        if kernel == "unmeasured":
            holes.add((int(arch), name))
        else:
            table[int(arch), name, kernel] = [int(v) for v in values]
    return made_with, table, holes


def write_table(path, table, holes):
    lines = [[str(v) for v in key] + [str(v) for v in values] for key, values in table.items()]
    lines += [[str(arch), name, "unmeasured"] for arch, name in holes]
    with open(path, "w") as f:
        f.write("# ptxas of toolkit %s; made by check.py --write\n" % toolkit())
        f.write("\t".join(["arch", "file", "kernel"] + COLUMNS) + "\n")
        for line in sorted(lines, key=lambda line: (int(line[0]), line[1:])):
            f.write("\t".join(line) + "\n")


def wanted(name, arch):
    return arch == 90 or name not in WGMMA_FILES


def missing_rows(table, holes):
    """Sentences about rows that are not there."""
    said = []
    kernels = {}
    for arch, name, kernel in table:
        kernels.setdefault(name, set()).add(kernel)
    for arch in TARGETS:
        for name in FILES:
            if not wanted(name, arch) or (arch, name) in holes:
                continue
            rows = {kernel for a, n, kernel in table if (a, n) == (arch, name)}
            if not rows:
                said.append("sm_%d %s has no rows" % (arch, name))
            said += ["sm_%d %s: %s has no row" % (arch, name, k) for k in sorted(kernels.get(name, set()) - rows) if rows]
    said += ["%s is in the table and no file of the kernels" % n for n in sorted({n for _, n, _ in table} - set(FILES))]
    return said


def check_rows(table, holes):
    said = missing_rows(table, holes)
    for line in said:
        print(line)
    older = {key[:2] for key in table}
    for hole in sorted(holes):
        print("sm_%d %s: %s" % (hole + ("rows of older sources" if hole in older else "not measured yet",)))
    pairs = sum(1 for arch in TARGETS for name in FILES if wanted(name, arch))
    print("%d rows; %d of %d pairs of file and target measured, %d rows missing" %
          (len(table), pairs - len(holes), pairs, len(said)))
    return len(said)


def compare(now, table, holes, jobs, same):
    """How many are over budget, missing or gone."""
    bad = 0
    for key, values in sorted(now.items()):
        if key[:2] in holes:
            was = ", older sources %s" % table[key] if key in table else ""
            print("sm_%d %s: %s: no budget yet, takes %s%s" % (key + (values, was)))
            bad += values[1] > 0  # nothing may spill unseen
            continue
        budget = table.get(key)
        if not budget:
            print("sm_%d %s: %s is not in the table" % key)
            bad += 1
            continue
        for column, value, most in zip(COLUMNS, values, budget):
            limit = most if same or column != "registers" else most * 1.1
            if value > limit or (column in COUNTED and value != most):
                print("sm_%d %s: %s: %d %s, the table says %d" % (key + (value, column, most)))
                bad += 1
    gone = [key for key in sorted(table) if (key[1], key[0]) in jobs and key[:2] not in holes and key not in now]
    for key in gone:
        print("sm_%d %s: %s is in the table and nowhere else" % key)
    return bad + len(gone)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--archs", default="86")
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "budgets.tsv")
    made_with, table, holes = read_table(path)
    lacking = 0 if options.write else check_rows(table, holes)
    if options.rows or lacking:
        return 1 if lacking else 0
    if not shutil.which("nvcc") or not shutil.which("ptxas"):
        print("skipped: there is no nvcc here")
        return 77
    jobs = [(name, int(arch)) for arch in options.archs.split(",") for name in options.files.split(",")
            if wanted(name, int(arch))]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: measure(options.root, *job), jobs))
    now = {(arch, name, kernel): values
           for (name, arch), result in zip(jobs, results) for kernel, values in result.items()}
    same = made_with == toolkit()
    if options.write:
        # read again: minutes may have passed
        kept = {key: v for key, v in read_table(path)[1].items() if same and (key[1], key[0]) not in jobs}
        holes = {hole for hole in read_table(path)[2] if (hole[1], hole[0]) not in jobs}
        write_table(path, {**kept, **now}, holes)
        print("wrote %d lines of %d" % (len(now), len(now) + len(kept)))
        return 0
    if not same:
        print("the table is of toolkit %s, this is %s: 10%% more registers are let through" % (made_with, toolkit()))
    bad = compare(now, table, holes, jobs, same)
    spills = sum(1 for values in now.values() if values[1])
    print("%d kernels of %d files and targets, %d over budget, %d with spills" % (len(now), len(jobs), bad, spills))
    return 1 if bad else 0


sys.exit(main())
