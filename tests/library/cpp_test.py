#!/usr/bin/env python3
"""pugmark.hpp from outside, as TAP: cpp_test.py BUILD_DIR

handles.cc is compiled as C++17 by both compilers, with and without optimisation, run, and what it traced is compared.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import tap

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
BUILD = pathlib.Path(sys.argv[1]).resolve()
COMPILERS = [c for c in ("g++", "clang++") if shutil.which(c)]
STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-pedantic", "-Werror", f"-I{INCLUDE}"]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=120, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}"
    return done.stdout


def spans_of(path):
    """Every span: name -> list of what is known of it. Handles are pairs of asynchronous events."""
    spans, by_id = {}, {}
    for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"]:
        if event["ph"] in ("X", "b"):
            span = {"name": event["name"], "ended": event["ph"] == "X", "cat": event["cat"], **event["args"]}
            spans.setdefault(event["name"], []).append(span)
            by_id[span["span_id"]] = span
        elif event["ph"] == "e":
            assert not by_id[event["id"]]["ended"], "ended twice"
            by_id[event["id"]]["ended"] = True
    return spans


def the_only(spans, name):
    assert len(spans.get(name, [])) == 1, f"{name}: {spans.get(name)}"
    return spans[name][0]


def what_was_traced(spans):
    everything = [s for group in spans.values() for s in group]
    assert all(s["ended"] for s in everything), everything
    assert all("pugmark.unfinished" not in s.get("attributes", {}) for s in everything), everything
    renamed = the_only(spans, "attributes.renamed")
    assert renamed["attributes"] == {
        "given": "at the start", "bool": True, "int": 7, "unsigned": 8, "long": -9, "enum": 3, "float": 0.5, "double": 1.25,
        "literal": "text", "string": "owned", "view": "view",
    }, renamed
    assert renamed["cat"] == "client" and renamed["status"] == "OK", renamed
    assert sorted(s["attributes"]["i"] for s in spans["moved"]) == [0, 1, 2, 3], spans["moved"]
    assert all("lost" not in s["attributes"] for s in spans["moved"]), spans["moved"]
    assert [s["attributes"].get("thread") for s in spans["moved"] if s["attributes"]["i"] == 3] == ["other"]
    parent, scope, remote = (the_only(spans, n) for n in ("parent", "child.scope", "child.remote"))
    assert scope["parent_id"] == parent["span_id"] and remote["parent_id"] == scope["span_id"], (parent, scope, remote)
    thrown = the_only(spans, "thrown")
    assert thrown["status"] == "ERROR" and thrown["status_message"] == "left by an exception", thrown
    assert "status" not in the_only(spans, "fine") and "parent_id" not in the_only(spans, "caught")
    assert the_only(spans, "failed.span")["status_message"] == "with words"


def traced(compiler, optimisation, library, work):
    link = [BUILD / "libpugmark.a"] if library == "a" else [f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}"]
    run(compiler, "-std=c++17", optimisation, *STRICT, HERE / "handles.cc", "-o", work / "handles", *link, "-pthread")
    environment = {"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_TRACE_DIR": str(work / "traces")}
    said = run(work / "handles", env=environment)
    assert said == "", said
    (path,) = (work / "traces").glob("*.json")
    what_was_traced(spans_of(path))


def disabled(compiler, work):
    run(compiler, "-std=c++17", "-O2", *STRICT, "-DPUG_DISABLE", HERE / "handles.cc", "-o", work / "handles", "-pthread")
    assert run(work / "handles", env={"PATH": os.environ["PATH"], "PUG_TRACING": "true"}, cwd=work) == ""
    assert not (work / ".local").exists(), "it traced"
    symbols = run("nm", "-C", "-u", work / "handles")
    assert not re.search(r"\bpug_", symbols), symbols
    # A function with a handle in it is the function without it.
    body = "int f(int i); int f(int i) {{ {} i = i * 3 + 1; {} return i; }}\n"
    for name, begin, end in (("with", 'pug::span s = PUG_SPAN_START("f", PUG_INT("i", i));', 's.set("i", i).end();'),
                             ("without", "", "")):
        (work / f"{name}.cc").write_text("#include <pugmark/pugmark.hpp>\n" + body.format(begin, end), encoding="utf-8")
        run(compiler, "-std=c++17", "-O2", *STRICT, "-DPUG_DISABLE", "-c", work / f"{name}.cc", "-o", work / f"{name}.o")
        run("objcopy", "-O", "binary", "--only-section=.text*", work / f"{name}.o", work / f"{name}.text")
    assert (work / "with.text").read_bytes() == (work / "without.text").read_bytes() != b"", "something is left"


def without_exceptions(compiler, work):
    run(compiler, "-std=c++17", "-fno-exceptions", "-fno-rtti", *STRICT, "-x", "c++", "-c", "-o", work / "x.o", "-",
        input="#include <pugmark/pugmark.hpp>\nvoid f(); void f() { pug::span s = PUG_SPAN_START(\"a\"); s.end(); }\n")


def too_old_is_said(compiler, work):
    done = subprocess.run([compiler, "-std=c++14", f"-I{INCLUDE}", "-fsyntax-only", "-x", "c++", "-"], capture_output=True,
                          text=True, input="#include <pugmark/pugmark.hpp>\n", check=False)
    assert done.returncode != 0 and "pugmark.hpp is C++17" in done.stderr, done.stderr


def main():
    tests = []
    for compiler in COMPILERS:
        for optimisation in ("-O0", "-O2"):
            for library in ("a", "so"):
                tests.append((f"handles end once and carry what they were told, {compiler} {optimisation}, lib{library}",
                              lambda w, c=compiler, o=optimisation, l=library: traced(c, o, l, w)))
        tests.append((f"PUG_DISABLE leaves nothing of a handle, {compiler}", lambda w, c=compiler: disabled(c, w)))
        tests.append((f"exceptions are not needed, {compiler}", lambda w, c=compiler: without_exceptions(c, w)))
        tests.append((f"an older language is refused with a word, {compiler}", lambda w, c=compiler: too_old_is_said(c, w)))
    return tap.run_tests(tests)


if __name__ == "__main__":
    sys.exit(main())
