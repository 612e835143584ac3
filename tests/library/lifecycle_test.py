#!/usr/bin/env python3
"""What a program may do between pug_start and its end: nothing that was recorded before is lost, nothing hangs, and the trace
file is whole. Each test runs lifecycle.c, linked like a user's program."""

import collections
import ctypes
import http.server
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import tap

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = pathlib.Path(sys.argv[1]).resolve()
SECONDS_MAX = 60


class Program:
    def __init__(self, folder):
        self.path = folder / "lifecycle"
        subprocess.run(["gcc", "-O1", "-Wall", "-fexceptions", f"-I{ROOT}/include", HERE / "lifecycle.c", "-o", self.path,
                        f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}", "-pthread", "-ldl"], check=True)
        self.plugins = {}
        for kind, libraries in {"so": [f"-L{BUILD}", "-lpugmark", f"-Wl,-rpath,{BUILD}"], "a": [BUILD / "libpugmark.a", "-pthread"]}.items():
            self.plugins[kind] = folder / f"plugin_{kind}.so"
            subprocess.run(["gcc", "-O1", "-Wall", "-fPIC", "-shared", f"-I{ROOT}/include", HERE / "lifecycle_plugin.c", "-o",
                            self.plugins[kind], *libraries], check=True)
        # Has nothing of Pugmark itself, so that unloading a plugin can take the library with it.
        self.host = folder / "host"
        (folder / "host.c").write_text((HERE / "lifecycle.c").read_text(encoding="utf-8"), encoding="utf-8")
        subprocess.run(["gcc", "-O1", "-DPUG_DISABLE", "-w", f"-I{ROOT}/include", folder / "host.c", "-o", self.host, "-pthread", "-ldl"],
                       check=True)


PROGRAM = None


class Run:
    """One run: its traces, and what it said."""

    def __init__(self, work, *args, status=0, program=None, before_end=None, cwd=None, **environment):
        self.traces = work / "traces"
        env = {"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_TRACE_DIR": str(self.traces),
               "PUG_SYSTEM_METRICS_INTERVAL_SECS": "0", "PUG_METRICS": "false", **environment}
        self.process = subprocess.Popen([program or PROGRAM.path, *args], env=env, cwd=cwd or work, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if before_end:
                assert self.process.stdout.readline() == "ready 1\n", self.process.stderr.read()
                before_end(self)
            out, self.told = self.process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{args} hangs") from None
        finally:
            self.process.kill()
            self.process.wait()
        if self.process.returncode == 77:
            raise tap.Skip("the user cannot be changed here")
        assert self.process.returncode == status, f"{args}: status {self.process.returncode}\n{self.told}"
        self.said = dict(line.split(" ") for line in out.splitlines())

    def spans(self, folder=None, may_be_cut=False):
        """name or name/which -> how often, over all files, each of which must be whole, or whole but for its last line."""
        found = collections.Counter()
        self.files = sorted((folder or self.traces).glob("*.json"))
        for path in self.files:
            text = path.read_text(encoding="utf-8")
            if may_be_cut and not text.endswith("}\n"):
                text = text[:text.rindex(",\n")] + "]}"
            for event in json.loads(text)["traceEvents"]:
                if event["ph"] in "Xb":
                    which = event["args"].get("attributes", {}).get("which")
                    found[event["name"] + (f"/{which}" if which else "")] += 1
        return found


def constructed(work):
    assert Run(work, "constructed", BEFORE_MAIN="1").spans() == {"one/before main": 1, "one/in main": 1}


def start_twice(work):
    run = Run(work, "start_twice")
    assert run.spans() == {"one/first": 1, "one/second": 1, "one/third": 1} and len(run.files) == 2


def fork_threads(work):
    run = Run(work, "fork_threads")
    spans = run.spans()
    assert spans["child"] == 8 and spans["one/parent"] == 12, spans
    assert len(run.files) == 9, "one of each process that recorded"
    pids = [json.loads(p.read_text(encoding="utf-8"))["traceEvents"][0]["pid"] for p in run.files]
    assert len(set(pids)) == 9, pids
    # Reports of what did not fit into a ring are spans, too.
    assert int(run.said["exported"]) >= int(run.said["recorded"]) and run.said["lost_export"] == run.said["told"] == "0", run.said


def spawned(work):
    assert Run(work, "spawned").spans() == {"around": 1, "one/after vfork": 1, "one/after posix_spawn": 1, "one/after system": 1}


def executed(work):
    run = Run(work, "executed")
    assert run.spans() == {"before exec": 1}
    assert run.said == {}, f"the program that was executed has our descriptors: {run.said}"


def daemonized(work):
    done = work / "done"
    run = Run(work, "daemonized", DONE=str(done), PUG_TRACE_DIR="relative")
    end = time.monotonic() + SECONDS_MAX
    while not done.exists():
        assert time.monotonic() < end, "the daemon does not end"
        time.sleep(0.01)
    assert run.spans(work / "relative") == {"one/before": 1, "one/after": 1}
    assert len(run.files) == 2


def sigterm(work):
    assert Run(work, "sigterm", status=-15).spans() == {"one/before": 1}


def sigkill(work):
    for _ in range(8):
        pause = random.random() / 20

        def kill(run, pause=pause):
            time.sleep(pause)
            run.process.kill()

        spans = Run(work, "until_killed", status=-9, before_end=kill).spans(may_be_cut=True)
        assert spans["one/before"] == 1, spans
        shutil.rmtree(work / "traces")


def ends(how, status):
    def test(work):
        spans = Run(work, "ends", how, status=status).spans()
        assert spans["one/before"] == 1 and spans["open"] == (1 if how in ("exit", "quick_exit") else 0), spans
    return test


def exit_elsewhere(work):
    for _ in range(4):
        spans = Run(work, "exit_elsewhere", status=3).spans()
        assert spans["one/before"] == 1, spans
        shutil.rmtree(work / "traces")


def exit_in_handler(work):
    # The collector is not there: pug_flush is in the middle of its wait.
    began = time.monotonic()
    Run(work, "exit_in_handler", status=4, PUG_BACKEND="otlp", PUG_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert time.monotonic() - began < 15
    assert Run(work, "exit_in_handler", status=4).spans()["one/before"] == 1


def thread_exit(work):
    assert Run(work, "thread_exit").spans() == {"open at pthread_exit": 1, "inner of it": 1, "one/after": 1}


def cancelled(work):
    assert Run(work, "cancelled").spans() == {"cancelled": 1, "one/after": 1}


def cancelled_in_flush(work):
    Run(work, "cancelled_in_flush", PUG_BACKEND="otlp", PUG_OTLP_ENDPOINT="http://127.0.0.1:1")


def plugin(kind):
    def test(work):
        spans = Run(work, "plugin", str(PROGRAM.plugins[kind]), program=PROGRAM.host).spans()
        assert spans == {"plugin.start": 1, "plugin.thread": 1}, spans
    return test


def close_all(work):
    run = Run(work, "close_all", OWN=str(work))
    assert run.spans() == {"one/before": 1, "one/thread": 40, "one/after": 1}, run.spans()
    assert len(run.files) == 2, "the second one begun when the first was closed"
    assert run.said["recorded"] == run.said["exported"] == "42" and run.said["told"] == "0"


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies = []

    def do_POST(self):
        Collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def close_all_otlp(work):
    Collector.bodies.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        run = Run(work, "close_all", OWN=str(work), PUG_BACKEND="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
                  PUG_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert run.said["recorded"] == run.said["exported"] == "42" and run.said["lost_export"] == "0", run.said
    text = b"".join(Collector.bodies)
    assert text.count(b"thread") >= 40 and b"before" in text and b"after" in text


def limited(work):
    run = Run(work, "limited_from_the_start")
    spans = run.spans()
    assert int(run.said["recorded"]) == 200
    assert 0 < int(run.said["exported"]) < 200 and spans["one/written or not"] == int(run.said["exported"]), (spans, run.said)
    assert int(run.said["exported"]) + int(run.said["lost_export"]) >= 200
    assert run.told.count("not written") == 1, run.told


def full_disk(work):
    disk = work / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", str(disk).encode(), b"tmpfs", 0, b"size=96k") != 0:
        raise tap.Skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        run = Run(work, "many", PUG_TRACE_DIR=str(disk))
        spans = run.spans(disk)
        lost, exported = int(run.said["lost_export"]), int(run.said["exported"])
        assert int(run.said["recorded"]) == 2000 and lost > 0
        assert spans["one/written or not"] + spans["pugmark.lost"] == exported > 0, (spans, run.said)
        assert exported + lost - spans["pugmark.lost"] >= 2000
        assert run.told.count("told:") == 1 and "No space left" in run.told, run.told
        document = json.loads(run.files[0].read_text(encoding="utf-8"))
        assert document["pugmark"]["exported"] == exported, document["pugmark"]
    finally:
        libc.umount(str(disk).encode())


def not_allowed(work):
    work.chmod(0o755)
    run = Run(work, "unprivileged", cwd="/", program=readable(PROGRAM.path, work))
    assert int(run.said["result"]) == -5 and run.said["recorded"] == "0", run.said
    assert run.told.count("told:") == 1 and "ermission denied" in run.told, run.told


def readable(program, work):
    """A copy that another user may run."""
    copy = work / program.name
    shutil.copy(program, copy)
    copy.chmod(0o755)
    for parent in BUILD.parents:
        if not os.stat(parent).st_mode & 0o001:
            raise tap.Skip("another user cannot reach the library here")
    return copy


def removed(work):
    run = Run(work, "interrupted", before_end=lambda r: (shutil.rmtree(r.traces), r.process.stdin.write("\n"), r.process.stdin.flush()))
    assert run.spans() == {"one/second": 5} and run.said["told"] == "0"
    assert run.said["recorded"] == run.said["exported"] == "6"


def removed_and_blocked(work):
    def block(run):
        shutil.rmtree(run.traces)
        run.traces.write_text("in the way", encoding="utf-8")
        run.process.stdin.write("\n")
        run.process.stdin.flush()

    run = Run(work, "interrupted", before_end=block)
    assert (work / "traces").read_text(encoding="utf-8") == "in the way"
    assert run.said["told"] == "1" and "the trace file has gone" in run.told, run.told
    assert run.said["recorded"] == "6" and run.said["exported"] == "1" and int(run.said["lost_export"]) >= 5, run.said


TESTS = [
    ("tracing starts before main", constructed),
    ("a second start is refused and changes nothing", start_twice),
    ("children record for themselves while threads of the parent go on", fork_threads),
    ("vfork, posix_spawn and system leave the parent's recording alone", spawned),
    ("what was flushed before exec is there, and no descriptor of ours is open after it", executed),
    ("a daemon goes on in a file of its own, where tracing was started", daemonized),
    ("SIGTERM with its default action leaves a whole file", sigterm),
    ("SIGKILL at any moment leaves a file of whole lines", sigkill),
    ("exit() in the middle of a span loses nothing", ends("exit", 3)),
    ("quick_exit() in the middle of a span loses nothing", ends("quick_exit", 3)),
    ("_exit() keeps what was flushed", ends("_exit", 3)),
    ("abort() keeps what was flushed", ends("abort", -6)),
    ("exit() while other threads record", exit_elsewhere),
    ("exit() in a signal handler that interrupted pug_flush ends the program", exit_in_handler),
    ("a thread that leaves ends its spans", thread_exit),
    ("a thread that is cancelled ends its spans", cancelled),
    ("a thread cancelled in pug_flush holds no lock", cancelled_in_flush),
    ("a plugin with the shared library is unloaded", plugin("so")),
    ("a plugin with the static library is unloaded", plugin("a")),
    ("a host that closes all descriptors finds nothing in its own files, and is traced on", close_all),
    ("the same with connections to a collector", close_all_otlp),
    ("a limit of the file size is an error, not a signal", limited),
    ("a full disk is told once, and the counts are exact", full_disk),
    ("a directory that may not be written is an error of pug_start", not_allowed),
    ("a trace that somebody removes is begun anew", removed),
    ("a trace that cannot be begun anew is told once, and recording goes on", removed_and_blocked),
]


def main():
    global PROGRAM
    wanted = sys.argv[2:]
    tests = [t for t in TESTS if not wanted or any(w in t[0] for w in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        PROGRAM = Program(pathlib.Path(folder))
        return tap.run_tests(tests)


if __name__ == "__main__":
    sys.exit(main())
