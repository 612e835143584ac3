#!/usr/bin/env python3
"""What a user links, looked at from outside, as TAP: library_test.py BUILD_DIR [sanitized]

Promises 1 and 2 of docs/architecture.md are here: PUG_DISABLE leaves nothing in the object file, and nothing that
allocates, locks, encodes or calls the kernel can be reached from the beginning or the end of a span.
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
ROOT = HERE.parent.parent
BUILD = pathlib.Path(sys.argv[1]).resolve()
INCLUDE = ROOT / "include"
COMPILERS = [c for c in ("gcc", "clang", "g++", "clang++") if shutil.which(c)]

# What a span may reach outside of the library: functions that do nothing but look at memory or read the clock (which is no
# system call on Linux). pthread_setspecific notes a thread's lane, once in its life.
HARMLESS = {
    "memcpy", "memset", "memmove", "memcmp", "strlen", "strnlen", "clock_gettime", "__errno_location", "pthread_self",
    "pthread_equal", "pthread_setspecific", "__stack_chk_fail", "__memcpy_chk", "memchr",
}
# The first span of a process after fork makes the child's own memory and drain: the exception that pugmark.h names.
EXCEPTIONS = {("pug__lane_claim", "sdk_revive")}
# Calls through a pointer, and why each is harmless: the counters of an allocator that the program was built or run with.
# A wrapped function is called between the begin and the end of its span.
INDIRECT = {"watch_counters_find", "pug__wrap_common"}
# Every function of the library that a span's life goes through, from the header's macros and from its users.
ENTRIES = [
    "pug__lane_claim", "pug__open_slow", "pug__begin_slow", "pug__begin_alone",
    "pug__begin_skip", "pug__one_in", "pug__end_slow", "pug__clock_slow", "pug__copy", "pug__attach", "pug__detach",
    "pug__event", "pug__span_start", "pug__span_none", "pug__span_pass", "pug_span_end", "pug_set_int", "pug_set_bool", "pug_set_double",
    "pug_set_str", "pug_set_strn", "pug_set_name", "pug_status", "pug_error", "pug_link", "pug_context_current",
    "pug_context_attach", "pug_context_detach", "pug_capture_current", "pug_capture_context", "pug__resume",
    "pug__resumed_end", "pug__baggage_begin", "pug__request_id_begin", "pug__ambient_restore", "pug_log_trace_id",
    "pug__wrap_common", "pug__wrap_begin", "pug__wrap_end",
]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def language(compiler):
    return ["-x", "c++", "-std=gnu++11"] if compiler.endswith("++") else ["-std=gnu99"]


def sections(path):
    """Name -> bytes, of everything that would be in a program."""
    out = {}
    for line in run("objdump", "-h", path).splitlines():
        match = re.match(r"\s*\d+ (\.\S+)\s+([0-9a-f]+)", line)
        if match and re.match(r"\.(text|rodata|data|bss|init_array|tdata|tbss)", match.group(1)):
            out[match.group(1)] = int(match.group(2), 16)
    return out


def text_of(path, work):
    run("objcopy", "-O", "binary", "--only-section=.text*", path, work / "text")
    return (work / "text").read_bytes()


def disabled_leaves_nothing(compiler, optimisation, work):
    flags = [*language(compiler), optimisation, "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", f"-I{INCLUDE}", "-c"]
    run(compiler, *flags, HERE / "shop_plain.c", "-o", work / "plain.o")
    run(compiler, *flags, "-DPUG_DISABLE", HERE / "shop_pugmark.c", "-o", work / "disabled.o")
    run(compiler, *flags, HERE / "shop_pugmark.c", "-o", work / "traced.o")
    plain, disabled = text_of(work / "plain.o", work), text_of(work / "disabled.o", work)
    assert plain, "no code at all"
    assert plain == disabled, f".text differs: {len(plain)} and {len(disabled)} bytes"
    assert sections(work / "plain.o") == sections(work / "disabled.o"), (
        f"{sections(work / 'plain.o')} is not {sections(work / 'disabled.o')}")
    assert text_of(work / "traced.o", work) != plain, "the comparison would not notice instrumentation"


def header_is_clean(compiler, standard, disabled, work):
    source = work / "only.c"
    every = "".join(f"#include <pugmark/{p.name}>\n" for p in sorted((INCLUDE / "pugmark").glob("*.h"))
                    if p.name not in ("inline.h", "disable.h"))
    source.write_text("#define PUG_LOG_SYSLOG\n" + every + "int more(void);\n"
                      "int more(void) {\n"
                      "    struct pug_baggage bag; struct pug_capture c = pug_capture_current(); pug_baggage_init(&bag);\n"
                      "    PUG_BAGGAGE(&bag); PUG_RESUME(&c); PUG_REQUEST_ID(\"r\");\n"
                      "    syslog(LOG_INFO, PUG_LOG_FMT, PUG_LOG_ARGS); pug_syslog(LOG_INFO, \"%s\", \"b\");\n"
                      "    char text[9]; return (int)pug_log_format(text, sizeof text, \"%(otel_trace_id)\"); }\n"
                      "int only(void);\n"
                      "struct table { int (*f)(int); };\nint wrap(struct table *t);\nint wrap(struct table *t) {\n"
                      "    static const struct pug_method m[] = {PUG_METHOD(struct table, f),\n"
                      "        PUG_METHOD_STACK(struct table, f, 512)};\n"
                      "    return PUG_WRAP_METHODS(t, \"t.\", m) + PUG_UNWRAP_METHODS(t, m); }\n"
                      "int only(void) { PUG_SPAN(\"a\"); PUG_FN();\n"
                      "    PUG_SPAN(\"b\", PUG_INT(\"i\", 1), PUG_STR(\"s\", \"t\"), PUG_KIND(PUG_KIND_CLIENT));\n"
                      "    PUG_SPAN_ONE_IN(7, \"c\", PUG_INT(\"i\", 1), PUG_STR(\"s\", \"t\"));\n"
                      "    pug_event(PUG_CURRENT, \"e\", PUG_DOUBLE(\"d\", 1.5)); return 0; }\n")
    run(compiler, *(["-x", "c++"] if compiler.endswith("++") else []), f"-std={standard}", "-O2", "-Wall", "-Wextra",
        "-Wshadow", "-Wconversion", "-pedantic", "-Werror", *(["-DPUG_DISABLE"] if disabled else []), f"-I{INCLUDE}", "-c",
        source, "-o", work / "only.o")


def scope_needs_a_block(compiler, work):
    source = work / "block.c"
    for scope in ('PUG_SPAN("a")', "PUG_FN()", 'PUG_SPAN_ONE_IN(3, "a")', "PUG_ATTACH(0)", 'PUG_SPAN_FROM(0, "a")'):
        for body, fine in ((f"if (c) {{ {scope}; c++; }}", True), (f"if (c) {scope};", False)):
            source.write_text(f"#include <pugmark/pugmark.h>\nint f(int c);\nint f(int c) {{ {body} return c; }}\n")
            done = subprocess.run([compiler, "-std=gnu17", "-fsyntax-only", f"-I{INCLUDE}", source], capture_output=True,
                                  check=False)
            assert (done.returncode == 0) == fine, f"{body}: {done.returncode} {done.stderr.decode()}"


def too_many_attributes_are_named(compiler, work):
    source = work / "many.c"
    for n in (12, 13, 18):
        source.write_text("#include <pugmark/pugmark.h>\nvoid f(void);\nvoid f(void) { PUG_SPAN(\"a\", "
                          + ", ".join(f'PUG_INT("k{i}", {i})' for i in range(n)) + "); }\n")
        done = subprocess.run([compiler, *language(compiler), "-fsyntax-only", f"-I{INCLUDE}", source], capture_output=True,
                              check=False)
        assert (done.returncode == 0) == (n <= 12), f"{n}: {done.returncode}"
        assert (b"MORE_THAN_PUG_ATTRS_MAX" in done.stderr) == (n > 12), done.stderr.decode()


def declared():
    text = "".join(p.read_text(encoding="utf-8") for p in sorted((INCLUDE / "pugmark").glob("*.h"))
                   if p.name not in ("inline.h", "disable.h"))
    # Types, and functions of libc by other names, are not ours to export.
    text = re.sub(r"^(typedef\b[^;]*|extern\b[^;]*__asm__\([^;]*);", "", text, flags=re.M)
    return set(re.findall(r"^[a-z][\w \*]*?\b\*?(pug_\w+)\(", text, re.M))


def exported():
    lines = run("nm", "-D", "--defined-only", BUILD / "libpugmark.so").split("\n")
    return {line.split()[-1].split("@")[0] for line in lines if line and line.split()[-2] != "A"}


def exports_are_the_list(work):
    listed = set(re.findall(r"^\s+(pug_\w+|otel_\w+);", (ROOT / "src/sdk/libpugmark.map").read_text(encoding="utf-8"), re.M))
    assert exported() == listed, f"not in the list or not exported: {sorted(exported() ^ listed)}"
    assert declared() <= listed, f"declared and not exported: {sorted(declared() - listed)}"
    assert len(declared()) > 20, declared()


def needs_libc_alone(work):
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", BUILD / "libpugmark.so")))
    assert needed and needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}, needed


def static_library_shows_only_pug(work):
    names = {line.split()[-1] for line in run("nm", "--defined-only", "-g", BUILD / "libpugmark.a").splitlines()
             if len(line.split()) == 3}
    assert names and all(n.startswith("pug_") or n == "otel_thread_ctx_v1" for n in names), sorted(
        n for n in names if not n.startswith("pug_"))


def program_traces(library, work):
    program = work / "traced"
    extra = [BUILD / "libpugmark.a", "-lpthread"] if library == "a" else [f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}"]
    # A function of the program's own with a name that the library uses inside.
    (work / "clash.c").write_text("int arena_alloc_slow(void); int arena_alloc_slow(void) { return 1; }\n")
    run("gcc", "-O2", f"-I{INCLUDE}", HERE / "traced.c", work / "clash.c", "-o", program, *extra)
    environment = {"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_TRACE_DIR": str(work / "traces")}
    assert run(program, env=environment) == "recorded 2 exported 2\n"
    (path,) = (work / "traces").glob("*.json")
    assert re.fullmatch(r"[0-9a-f]{16}_\d{8}T\d{6}Z\.json", path.name), path.name
    document = json.loads(path.read_text(encoding="utf-8"))
    spans = {e["name"]: e for e in document["traceEvents"] if e["ph"] == "X"}
    assert spans.keys() == {"outer", "inner"}, spans.keys()
    inner, outer = spans["inner"], spans["outer"]
    assert inner["args"]["parent_id"] == outer["args"]["span_id"]
    assert inner["args"]["trace_id"] == outer["args"]["trace_id"]
    assert inner["cat"] == "client" and inner["args"]["attributes"] == {"text": "seven"}
    assert outer["args"]["attributes"] == {"number": 7} and "parent_id" not in outer["args"]
    assert outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert document["pugmark"]["exported"] == 2
    shutil.rmtree(work / "traces")
    del environment["PUG_TRACING"]
    assert run(program, env=environment) == "recorded 0 exported 0\n"
    assert not (work / "traces").exists(), "tracing is off, and yet there is a file"


def wrapped_functions_are_the_same(compiler, optimisation, work):
    """Every shape of function, through a wrapped table and not, with the shared library; and what is thrown through it."""
    cxx = compiler.endswith("++")
    source, said = (HERE / "wrapped.cc", "42 spans\n") if cxx else (HERE / "wrapped.c", "393 calls, same\n")
    run(compiler, "-std=c++17" if cxx else "-std=gnu17", optimisation, "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", source,
        "-o", work / "wrapped", f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}", "-lpthread", "-lm")
    avx512 = "avx512f" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    avx = "avx" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if not cxx:
        said = said.replace("393", str(391 + avx + avx512))
    environment = {"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_BACKEND": "discard"}
    assert run(work / "wrapped", env=environment, timeout=60) == said


def probes_are_in(path, linked):
    """The notes of the two probes: a nop of five bytes where they say, arguments, and one semaphore for both."""
    notes = run("readelf", "-n", "--wide", path)
    found = re.findall(r"Provider: (\w+)\s+Name: (\w+)\s+Location: (0x[0-9a-f]+), Base: (0x[0-9a-f]+), "
                       r"Semaphore: (0x[0-9a-f]+)\s+Arguments: (.*)", notes)
    assert {(f[0], f[1]) for f in found} == {("pugmark", "span_begin"), ("pugmark", "span_end")}, notes
    for _, name, location, _, semaphore, arguments in found:
        assert len(arguments.split()) == {"span_begin": 4, "span_end": 3}[name], arguments
        assert all(re.fullmatch(r"8@%r\w+", a) for a in arguments.split()), arguments
        if linked:
            assert int(semaphore, 16) and int(location, 16), notes
            start = int(location, 16)
            code = run("objdump", "-d", f"--start-address={start}", f"--stop-address={start + 5}", path)
            assert "0f 1f 44 00 00" in code, code
    if linked:
        assert len({f[4] for f in found}) == 1, notes


def probes_are_where_tracers_look(work):
    probes_are_in(BUILD / "libpugmark.so", True)
    program = work / "probed"
    (work / "clash.c").write_text("int arena_alloc_slow(void); int arena_alloc_slow(void) { return 1; }\n")
    run("gcc", "-O2", "-fPIE", "-pie", f"-I{INCLUDE}", HERE / "traced.c", work / "clash.c", "-o", program,
        BUILD / "libpugmark.a", "-lpthread", "-lm")
    probes_are_in(program, True)


def calls(work):
    """Function -> what it calls, jumps to or takes the address of, of the whole static library. Functions of the same name
    (static ones of several files) are one: that can only add to what is reached."""
    run("ar", "x", BUILD / "libpugmark.a", cwd=work)
    graph, starts, inside = {}, {}, []
    current = section = None
    for line in run("objdump", "-dr", "--no-show-raw-insn", work / "pugmark.o").splitlines():
        if line.startswith("Disassembly of section "):
            section = line.split()[-1].rstrip(":")
            continue
        start = re.match(r"([0-9a-f]+) <(.+)>:$", line)
        if start:
            current = graph.setdefault(start.group(2), set())
            starts.setdefault(section, []).append((int(start.group(1), 16), start.group(2)))
            continue
        relocation = re.search(r"R_X86_64_(PLT32|PC32|GOTPCREL\w*|32S?|64)\s+([\w.]+?)([-+]0x[0-9a-f]+)?$", line)
        if relocation and not relocation.group(2).startswith("."):
            current.add(relocation.group(2))
        elif relocation and relocation.group(2).startswith(".text"):
            # Into another section, such as that of cold parts: by address. A relative one counts from behind its 4 bytes.
            behind = 4 if relocation.group(1) in ("PLT32", "PC32") else 0
            inside.append((current, relocation.group(2), int(relocation.group(3) or "0", 16) + behind))
        branch = re.search(r"\b(?:call|jmp|j[a-z]{1,2})\s+[0-9a-f]+ <([^>+]+)(?:\+0x[0-9a-f]+)?>", line)
        if branch:
            current.add(branch.group(1))
        if re.search(r"\b(?:call|jmp)\s+\*", line):
            current.add("(indirect call)")
    for caller, where, offset in inside:
        before = [name for at, name in sorted(starts[where]) if at <= offset]
        assert before, f"{where}+{offset:#x} is in no function"
        caller.add(before[-1])
    return graph


def reached_from(graph, data, entries):
    """Functions of the library that can be reached, and functions outside of it -> who calls them."""
    seen, outside = set(), {}
    queue = list(entries)
    for name in entries:
        assert name in graph, f"{name} is not in the library"
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for target in graph[name]:
            if (name.split(".")[0], target.split(".")[0]) in EXCEPTIONS:
                continue
            if target == "(indirect call)" and name.split(".")[0] in INDIRECT:
                continue
            if target in graph:
                queue.append(target)
            elif target not in data:
                outside.setdefault(target, name)
    return seen, outside


def data_of(work):
    return {line.split()[-1] for line in run("nm", work / "pugmark.o").splitlines()
            if len(line.split()) == 3 and line.split()[1] in "bBdDrR"}


def span_reaches_nothing_that_waits(work):
    graph = calls(work)
    seen, outside = reached_from(graph, data_of(work), ENTRIES)
    bad = {t: f for t, f in outside.items() if t not in HARMLESS}
    assert not bad, f"reached from a span: {bad}"
    encoders = [n for n in seen if n.startswith(("otlp_", "json_", "chrome_", "export", "curl_", "buf_", "arena_"))]
    assert not encoders, f"reached from a span: {encoders}"
    assert "lane_intern" in seen and "memcpy" in outside, "the walk has lost its way"
    # The walk must be able to fail: starting a session does all of it.
    assert "malloc" in graph["curl_load"] or any("pthread_create" in graph[n] for n in graph), "no calls were found at all"


def channel_waits_for_nothing(work):
    """The two that may not wait: a futex is woken (a system call when somebody sleeps there), and that is all."""
    graph = calls(work)
    seen, outside = reached_from(graph, data_of(work), ["pug_channel_try_send", "pug_channel_try_recv"])
    bad = {t: f for t, f in outside.items() if t not in HARMLESS | {"syscall"}}
    assert not bad, f"reached from a channel: {bad}"
    assert "pug__begin_slow" in seen, "the walk has lost its way"


def sdk_disassembly_is_readable():
    return os.uname().machine == "x86_64"


def main():
    sanitized = "sanitized" in sys.argv[2:]
    tests = []
    for compiler in COMPILERS:
        for optimisation in ("-O2", "-Os"):
            tests.append((f"PUG_DISABLE leaves nothing behind, {compiler} {optimisation}",
                          lambda w, c=compiler, o=optimisation: disabled_leaves_nothing(c, o, w)))
        tests.append((f"an attribute too many is an error with a name, {compiler}",
                      lambda w, c=compiler: too_many_attributes_are_named(c, w)))
        if not compiler.endswith("++"):
            tests.append((f"a scope without a block is an error, {compiler}", lambda w, c=compiler: scope_needs_a_block(c, w)))
        for standard in ("c++11", "c++17") if compiler.endswith("++") else ("c99", "c11", "gnu17"):
            for disabled in (False, True):
                tests.append((f"the header is clean, {compiler} -std={standard}{' -DPUG_DISABLE' if disabled else ''}",
                              lambda w, c=compiler, s=standard, d=disabled: header_is_clean(c, s, d, w)))
    if not sanitized:
        if os.uname().machine in ("x86_64", "aarch64"):
            tests += [(f"wrapped functions are the same, {compiler} {optimisation}",
                       lambda w, c=compiler, o=optimisation: wrapped_functions_are_the_same(c, o, w))
                      for compiler in COMPILERS for optimisation in ("-O0", "-O1", "-O2")]
        tests += [
            ("the shared library exports what the list says", exports_are_the_list),
            ("the shared library needs libc alone", needs_libc_alone),
            ("the probes are where tracers look", probes_are_where_tracers_look),
            ("the static library shows only pug_ names", static_library_shows_only_pug),
            ("a program with the shared library leaves a valid trace", lambda w: program_traces("so", w)),
            ("a program with the static library leaves a valid trace", lambda w: program_traces("a", w)),
        ]
        if sdk_disassembly_is_readable():
            tests.append(("a span reaches nothing that allocates, locks, encodes or calls the kernel",
                          span_reaches_nothing_that_waits))
            tests.append(("a channel that may not wait does not", channel_waits_for_nothing))
    return tap.run_tests(tests)


if __name__ == "__main__":
    sys.exit(main())
