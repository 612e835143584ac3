#!/usr/bin/env python3
"""What libpugmark measures beside spans, seen from outside, as TAP: channels, numbers of the process, allocations.

measure_test.py BUILD [sanitized]
"""

import glob
import json
import os
import pathlib
import re
import subprocess
import sys

import tap

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INCLUDE = ROOT / "include"
BUILD = pathlib.Path(sys.argv[1]).resolve()
HEADERS = ("queue.h", "channel.h", "metrics.h", "alloc.h")
ALLOC = BUILD / "libpugmark-alloc.so"


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=120,
                          **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr.decode()}"
    return done.stdout.decode()


def compiled(work, source, *libraries, compiler="gcc", flags=()):
    program = work / pathlib.Path(source).stem
    language = ["-x", "c++"] if compiler.endswith("++") else []
    run(compiler, "-O2", "-pthread", *flags, f"-I{INCLUDE}", *language, source, "-x", "none", "-o", program, *libraries)
    return program


SHARED = [f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}"]
STATIC = [BUILD / "libpugmark.a", "-ldl"]


def traced(work, program, *arguments, **variables):
    """Its output, and the events of its trace files."""
    directory = work / "traces"
    for file in directory.glob("*"):
        file.unlink()
    environment = {"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_TRACE_DIR": str(directory), **variables}
    output = run(program, *arguments, env=environment, cwd=work)
    events = []
    for file in sorted(glob.glob(f"{directory}/*.json")):
        events += json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["traceEvents"]
    return output, events


def spans(events, name):
    return [e for e in events if e["ph"] == "X" and e["name"] == name]


def span(events, name):
    (one,) = spans(events, name)
    return one


# ---- compiled away ----

def text(source, compiler, optimisation, work, *flags):
    obj = work / "relay.o"
    language = ["-x", "c++"] if compiler.endswith("++") else []
    run(compiler, optimisation, *flags, f"-I{INCLUDE}", *language, "-c", source, "-o", obj)
    raw = work / "relay.bin"
    run("objcopy", "-O", "binary", "-j", ".text", obj, raw)
    undefined = run("nm", "-u", obj).split()
    return raw.read_bytes(), [name for name in undefined if name.startswith("pug")]


def disabled_channel_is_a_queue(compiler, optimisation, work):
    channel, calls = text(HERE / "relay.c", compiler, optimisation, work, "-DPUG_DISABLE")
    queue, _ = text(HERE / "relay.c", compiler, optimisation, work)
    assert len(channel) > 200 and channel == queue, f"{len(channel)} and {len(queue)} bytes, or others"
    assert not calls, f"needs the library: {calls}"


def disabled_channel_works(work):
    source = work / "main.c"
    source.write_text('#include <pugmark/channel.h>\n#include <pugmark/metrics.h>\n#include <pugmark/alloc.h>\n'
                      'int main(void) { struct pug_channel_options o = {sizeof o, "c", 4, 2, 0, 0, 0};\n'
                      'struct pug_channel *c = 0; int v = 7, got = 0; struct pug_context from;\n'
                      'struct pug_channel_counts n = {sizeof n, 0, 0, 0}; struct pug_alloc_counts a;\n'
                      'struct pug_metric m = {sizeof m};\n'
                      'if (pug_channel_new(&o, &c) || pug_channel_try_send(c, &v) || pug_channel_send(c, &v, 5)) return 1;\n'
                      'if (pug_channel_try_send(c, &v) != PUG_ERR_FULL || pug_channel_try_recv(c, &got, &from)) return 2;\n'
                      'if (got != 7 || pug_context_valid(&from)) return 3; pug_channel_counts_read(c, &n);\n'
                      'if (n.sent != 2 || n.received != 1) return 4; pug_channel_close(c);\n'
                      'if (pug_channel_recv(c, &got, PUG_FOREVER, &from) || pug_channel_try_recv(c, &got, 0) != PUG_ERR_CLOSED)'
                      ' return 5;\n'
                      'pug_metrics_each(0, 0);\n'
                      'if (pug_metrics_read("x", &m) != PUG_ERR_NOT_FOUND || pug_alloc_counts_read(&a) != PUG_ERR_UNSUPPORTED)'
                      ' return 6;\n'
                      'pug_channel_free(c); return 0; }\n', encoding="utf-8")
    run(compiled(work, source, flags=["-DPUG_DISABLE", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
                                             "-Wno-misleading-indentation"]))


def headers_are_clean(compiler, standard, work):
    for disabled in ([], ["-DPUG_DISABLE"]):
        for header in HEADERS:
            source = work / "header.c"
            source.write_text(f"#include <pugmark/{header}>\nint x;\n", encoding="utf-8")
            language = ["-x", "c++"] if compiler.endswith("++") else []
            run(compiler, *language, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", *disabled,
                f"-I{INCLUDE}", "-fsyntax-only", source)


# ---- channels ----

def channel_spans_and_context(libraries, work):
    output, events = traced(work, compiled(work, HERE / "channels.c", *libraries))
    ids = {e["args"]["span_id"]: e for e in events if e["ph"] == "X"}

    requests = {e["args"]["attributes"]["number"]: e for e in spans(events, "request")}
    sends, receives, works = (spans(events, n) for n in ("channel.status_send", "channel.status_recv", "work"))
    assert len(sends) == len(receives) == len(works) == 3, (sends, receives, works)
    for send in sends:
        assert send["cat"] == "producer" and ids[send["args"]["parent_id"]]["name"] == "request"
    for receive in receives:  # a thread with no span open: a child of the send, after it began
        send = ids[receive["args"]["parent_id"]]
        assert receive["cat"] == "consumer" and send["name"] == "channel.status_send" and receive["tid"] != send["tid"]
        assert receive["ts"] >= send["ts"] and receive["args"]["trace_id"] == send["args"]["trace_id"]
    for work_span in works:  # what the message said it comes from
        send = ids[work_span["args"]["parent_id"]]
        assert send["name"] == "channel.status_send"
        assert ids[send["args"]["parent_id"]] is requests[work_span["args"]["attributes"]["number"]]

    loop, inside, sent = span(events, "loop"), span(events, "channel.inside_recv"), span(events, "channel.inside_send")
    assert inside["args"]["parent_id"] == loop["args"]["span_id"]
    assert inside["args"]["links"] == [{"trace_id": sent["args"]["trace_id"], "span_id": sent["args"]["span_id"]}]
    assert loop["ts"] <= inside["ts"] and inside["ts"] + inside["dur"] <= loop["ts"] + loop["dur"]

    full = spans(events, "channel.full_send")
    assert [s["args"].get("status_message") for s in full] == [None, "full", "full"], full

    assert not spans(events, "channel.quiet_send") and not spans(events, "channel.quiet_recv")
    assert span(events, "quiet.work")["args"]["parent_id"] == requests[9]["args"]["span_id"]
    remote = span(events, "remote.work")["args"]
    assert (remote["trace_id"], remote["parent_id"], remote["trace_state"]) == \
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "vendor=value")

    assert output == "busy 2000 2000 0\ndefault 1000\n", output
    busy = len(spans(events, "channel.busy_send"))
    assert 10 <= busy < 1000 and len(spans(events, "channel.busy_recv")) == busy, busy
    usual = spans(events, "channel.usual_send")
    took = (usual[-1]["ts"] - usual[0]["ts"]) / 1e6
    # The burst, what came due in those seconds, and in up to one before, if the drain had not looked for so long.
    assert 1000 <= len(usual) <= 1000 * (2 + took), (len(usual), took)
    counters = {}
    for e in events:
        if e["ph"] == "C":
            counters[e["name"]] = e["args"]  # the last one stands
    assert counters["channel.sent busy"] == {"value": 2000} and counters["channel.received busy"] == {"value": 2000}
    assert counters["channel.sent full"] == {"value": 1} and counters["channel.dropped full"] == {"value": 2}
    assert counters["channel.sent status"] == {"value": 3} and counters["channel.queue_depth status"] == {"value": 0}
    assert set(counters["channel.backpressure_latency_us status"]) == {"count", "sum", "max"}


def channels_work_without_tracing(work):
    output, events = traced(work, compiled(work, HERE / "channels.c", *SHARED), PUG_TRACING="false")
    assert output == "" and not events, "without tracing no context travels, and the program says so"


# ---- the process ----

def system_metrics_are_in_the_trace(work):
    program = compiled(work, HERE / "channels.c", *SHARED)
    _, events = traced(work, program, "1200", PUG_SYSTEM_METRICS_INTERVAL_SECS="1")
    marks = [e for e in events if e["ph"] == "i"]
    assert len(marks) == 2, marks  # at the start, and a second later
    for mark in marks:
        assert mark["name"] == "system_metrics" and mark["s"] == "p"
        assert set(mark["args"]) == {"rss_bytes", "cpu_percent", "thread_count", "fd_count"}, mark
        assert mark["args"]["rss_bytes"] > 100000 and mark["args"]["thread_count"] == 2
        assert 0 <= mark["args"]["cpu_percent"] <= 100 * os.cpu_count() and mark["args"]["fd_count"] >= 4
        for name, value in mark["args"].items():
            assert any(e["ph"] == "C" and e["name"] == name and e["args"] == {name: value} and e["ts"] == mark["ts"]
                       for e in events), name
    assert 900_000 <= marks[1]["ts"] - marks[0]["ts"], "microseconds"


def system_metrics_are_at_most_once_a_second(work):
    program = compiled(work, HERE / "channels.c", *SHARED)
    _, events = traced(work, program, "1500", PUG_SYSTEM_METRICS_INTERVAL_SECS="0.01")
    marks = [e["ts"] for e in events if e["ph"] == "i" and e["name"] == "system_metrics"]
    assert len(marks) >= 2 and all(b - a >= 999_000 for a, b in zip(marks, marks[1:])), marks


def system_metrics_can_be_off(work):
    _, events = traced(work, compiled(work, HERE / "channels.c", *SHARED), "20", PUG_SYSTEM_METRICS_INTERVAL_SECS="0")
    assert not [e for e in events if e["ph"] in "iC"], events


# ---- allocations ----

ALLOC_FLAGS = ["-Wno-clobbered", "-Wno-alloc-size-larger-than", "-Wno-free-nonheap-object"]
WAYS = {
    "preloaded, with the shared library": (SHARED, {"LD_PRELOAD": str(ALLOC)}),
    "preloaded, with the static library": (STATIC, {"LD_PRELOAD": str(ALLOC)}),
    "linked": ([*SHARED, "-lpugmark-alloc"], {}),
    "linked statically": ([BUILD / "libpugmark-alloc.a", *SHARED], {}),
    "linked statically, as the library": ([BUILD / "libpugmark-alloc.a", *STATIC], {}),
}


def allocations(events, name):
    found = span(events, name)["args"]["attributes"]
    assert found["alloc.net_bytes"] == found["alloc.bytes"] - found["dealloc.bytes"], found
    return tuple(found[k] for k in ("alloc.count", "alloc.bytes", "dealloc.count", "dealloc.bytes"))


def allocations_are_exact(libraries, variables, work):
    program = compiled(work, HERE / "allocs.c", *libraries, flags=ALLOC_FLAGS)
    output, events = traced(work, program, PUG_ALLOC_TRACKING="true", **variables)
    said = {line.split()[0]: tuple(int(n) for n in line.split()[1:]) for line in output.splitlines()}
    assert said["counted"] == (1,), output
    for name in ("family", "resizing", "inner", "outer", "threads", "mismatched", "child"):
        assert allocations(events, name) == said[name], (name, allocations(events, name), said[name])
    assert said["family"][0] == said["family"][2] == 10 and said["family"][1] == said["family"][3]
    assert allocations(events, "library") == (0, 0, 0, 0)
    assert "attributes" not in [e for e in events if e["ph"] == "b" and e["name"] == "handle"][0]["args"]
    # An end that never came, or came for nothing: right numbers for all others, none that is negative or absurd.
    jumped = allocations(events, "jumped.over")
    assert jumped[0] == 1 and jumped[2] == 2, jumped
    deep = sorted(e["args"]["attributes"]["alloc.count"] for e in spans(events, "deep"))
    assert said["lost"][0] == 601 - len(deep) and deep == list(range(deep[0], deep[0] + len(deep))), said
    assert deep[-1] == 601, "what dropped spans allocated belongs to those around them"


def nothing_is_counted_unless_asked_for(work):
    program = compiled(work, HERE / "allocs.c", *SHARED, flags=ALLOC_FLAGS)
    _, events = traced(work, program, LD_PRELOAD=str(ALLOC))
    assert "attributes" not in span(events, "family")["args"]


def it_is_told_when_nobody_counts(work):
    source = work / "told.c"
    source.write_text('#include <pugmark/pugmark.h>\n#include <stdio.h>\n'
                      'static void tell(void *u, const char *m) { (void)u; puts(m); }\n'
                      'int main(void) { struct pug_options o = {sizeof o}; o.log = tell; pug_start(&o);\n'
                      '{ PUG_SPAN("plain"); } return pug_stop(); }\n', encoding="utf-8")
    output, events = traced(work, compiled(work, source, *SHARED), PUG_ALLOC_TRACKING="true")
    assert re.fullmatch(r"alloc_tracking is on.*libpugmark-alloc.*\n", output), output
    assert "attributes" not in span(events, "plain")["args"]


def operator_new_is_counted(work):
    source = work / "new.cc"
    source.write_text('#include <pugmark/pugmark.h>\n#include <string>\n#include <vector>\n#include <cstdio>\n'
                      '#include <malloc.h>\n'
                      'struct alignas(64) wide { char c[64]; };\n'
                      'template <class T> T *volatile hidden;\n'
                      'int main() { pug_start(nullptr); { PUG_SPAN("new");\n'
                      'hidden<int> = new int[1000]; size_t n = malloc_usable_size((void *)hidden<int>);\n'
                      'hidden<wide> = new wide; n += malloc_usable_size((void *)hidden<wide>);\n'
                      'std::printf("%zu\\n", n); delete[] hidden<int>; delete hidden<wide>; }\n'
                      '{ PUG_SPAN("vector"); std::vector<std::string> v; v.reserve(100);\n'
                      'for (int i = 0; i < 100; i++) v.emplace_back(1000, \'x\'); }\n'
                      'return pug_stop(); }\n', encoding="utf-8")
    program = compiled(work, source, *SHARED, compiler="g++", flags=["-std=c++17"])
    output, events = traced(work, program, PUG_ALLOC_TRACKING="true", LD_PRELOAD=str(ALLOC))
    # printf allocates its buffer, which stays.
    count, size, freed, freed_size = allocations(events, "new")
    assert (count, freed) == (3, 2) and freed_size == int(output) and size > freed_size, (output, count, size, freed)
    assert allocations(events, "vector")[0] == allocations(events, "vector")[2] == 101


def the_allocator_below_stays(work):
    """One that the program links is still the one that allocates."""
    (work / "own.c").write_text('#include <stddef.h>\n#include <string.h>\nstatic char pool[1 << 22]; static size_t used; int own_calls;\n'
                                'void *malloc(size_t n) { own_calls++; n = (n + 31) & ~(size_t)15; char *p = pool + used; used += n;\n'
                                ' memcpy(p, &n, sizeof n); return used > sizeof pool ? NULL : p + 16; }\n'
                                'void free(void *p) { (void)p; own_calls++; }\n'
                                'void *calloc(size_t a, size_t b) { return malloc(a * b); }\n'
                                'size_t malloc_usable_size(void *p) { size_t n; memcpy(&n, (char *)p - 16, sizeof n); return n - 16; }\n'
                                'void *realloc(void *p, size_t n) { void *q = malloc(n); if (p) { size_t m = malloc_usable_size(p);\n'
                                ' memcpy(q, p, m < n ? m : n); } return q; }\n', encoding="utf-8")
    run("gcc", "-O2", "-fPIC", "-fno-builtin", "-shared", work / "own.c", "-o", work / "libown.so")
    source = work / "uses.c"
    source.write_text('#include <pugmark/alloc.h>\n#include <stdio.h>\n#include <stdlib.h>\nextern int own_calls;\n'
                      'void *volatile p;\nint main(void) { struct pug_alloc_counts a, b; pug_alloc_counts_read(&a);\n'
                      'int before = own_calls; p = malloc(100); free(p); pug_alloc_counts_read(&b);\n'
                      'printf("%d %d %d %d\\n", own_calls - before, (int)(b.alloc_count - a.alloc_count),\n'
                      '(int)(b.alloc_bytes - a.alloc_bytes), (int)(b.dealloc_bytes - a.dealloc_bytes)); return 0; }\n',
                      encoding="utf-8")
    program = compiled(work, source, *SHARED, f"-L{work}", "-lown", f"-Wl,-rpath,{work}")
    output, _ = traced(work, program, LD_PRELOAD=str(ALLOC))
    assert output == "2 1 112 112\n", output


def programs_run_as_before(work):
    """Programs that know nothing of us, with threads, forks and other languages among them."""
    for command in (["ls", "/"], ["sh", "-c", "echo $(echo a | cat)"], [sys.executable, "-c", "print(sum(range(10)))"],
                    ["gcc", "--version"]):
        plain = run(*command)
        assert run(*command, env={**os.environ, "LD_PRELOAD": str(ALLOC)}) == plain, command


def main():
    sanitized = "sanitized" in sys.argv[2:]
    tests = []
    for compiler in ("gcc", "g++", "clang", "clang++"):
        for optimisation in ("-O2", "-Os"):
            tests.append((f"PUG_DISABLE leaves a plain queue of a channel, {compiler} {optimisation}",
                          lambda w, c=compiler, o=optimisation: disabled_channel_is_a_queue(c, o, w)))
        for standard in ("c++11", "c++17") if compiler.endswith("++") else ("c99", "gnu17"):
            tests.append((f"the headers are clean, {compiler} -std={standard}",
                          lambda w, c=compiler, s=standard: headers_are_clean(c, s, w)))
    tests.append(("a channel works without the library", disabled_channel_works))
    if not sanitized:
        tests += [
            ("spans of channels nest, link and carry the context", lambda w: channel_spans_and_context(SHARED, w)),
            ("the same with the static library", lambda w: channel_spans_and_context(STATIC, w)),
            ("the process's numbers are marks and counters", system_metrics_are_in_the_trace),
            ("an interval under a second is a second", system_metrics_are_at_most_once_a_second),
            ("the process's numbers can be off", system_metrics_can_be_off),
        ]
        for way, (libraries, variables) in WAYS.items():
            tests.append((f"allocations are counted exactly, {way}",
                          lambda w, l=libraries, v=variables: allocations_are_exact(l, v, w)))
        tests += [
            ("allocations are not counted unless asked for", nothing_is_counted_unless_asked_for),
            ("it is told when nobody counts allocations", it_is_told_when_nobody_counts),
            ("operator new is counted", operator_new_is_counted),
            ("the program's own allocator goes on allocating", the_allocator_below_stays),
            ("programs run as before with counted allocations", programs_run_as_before),
        ]
    return tap.run_tests(tests)


if __name__ == "__main__":
    sys.exit(main())
