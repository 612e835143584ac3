#!/usr/bin/env python3
"""What `./dev install` leaves is enough for a stranger, as TAP:  install_test.py BUILD_DIR SOURCE_DIR

Installs below a temporary directory, then does what the README and the manual page tell: compiles their programs with
nothing but what pkg-config says, runs them, and looks for the spans. The other ways to build with it follow
(packaging/README.md).
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "library"))
import tap  # noqa: E402  pylint: disable=wrong-import-position

BUILD, SOURCE = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])


def run(command, **kwargs):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          text=True, errors="replace", check=False, timeout=120, **kwargs)
    assert done.returncode == 0, f"`{' '.join(map(str, command))}` exits with {done.returncode}:\n{done.stdout}"
    return done.stdout


def option(name):
    options = json.loads((BUILD / "meson-info/intro-buildoptions.json").read_text(encoding="utf-8"))
    return next(o["value"] for o in options if o["name"] == name)


class Installed:
    def __init__(self, root):
        self.root = root
        run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root])
        self.prefix = root / option("prefix").lstrip("/")
        self.libdir = self.prefix / option("libdir")

    def version(self):
        return run([self.prefix / "bin/pugmark", "--version"]).split()[1]

    def relocated_pkgconfig(self):
        """A folder with pugmark.pc for where it was installed to just now."""
        folder = self.root / "pkgconfig"
        folder.mkdir(exist_ok=True)
        text = (self.libdir / "pkgconfig/pugmark.pc").read_text(encoding="utf-8")
        (folder / "pugmark.pc").write_text(re.sub(r"^prefix=.*$", f"prefix={self.prefix}", text, flags=re.MULTILINE),
                                           encoding="utf-8")
        return folder

    def flags(self, *what):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.libdir / "pkgconfig")}
        return run(["pkg-config", f"--define-variable=prefix={self.prefix}", *what, "pugmark"], env=environment).split()

    def compile_and_run(self, source, name, compiler, *static):
        folder = self.root / f"{name}-{compiler}{'-static' if static else ''}"
        folder.mkdir()
        suffix = "cc" if compiler == "g++" else "c"
        (folder / f"{name}.{suffix}").write_text(source, encoding="utf-8")
        libraries = [self.libdir / "libpugmark.a", "-pthread", "-lm"] if static else self.flags("--libs")
        run([compiler, "-Wall", "-Wextra", "-Werror", f"{name}.{suffix}", *self.flags("--cflags"), *libraries, "-o", name],
            cwd=folder)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PUG_", "OTEL_"))}
        environment["LD_LIBRARY_PATH"] = str(self.libdir)
        run([f"./{name}"], cwd=folder, env=environment)
        assert not (folder / ".local").exists(), "it traced although nobody had turned that on"
        run([f"./{name}"], cwd=folder, env={**environment, "PUG_TRACING": "true"})
        traces = list((folder / ".local/traces").glob("*.json"))
        assert len(traces) == 1, f"{len(traces)} trace files instead of one"
        document = json.loads(traces[0].read_text(encoding="utf-8"))
        events = document["traceEvents"] if isinstance(document, dict) else document
        spans = [event for event in events if event.get("name") == "work.step"]
        steps = [str(span["args"]["attributes"]["step"]) for span in spans]
        assert steps == ["0", "1", "2"], f"the spans work.step have step {steps}"


CMAKE_LISTS = """cmake_minimum_required(VERSION 3.12)
project(work C)
find_package(pugmark {version} REQUIRED)
add_executable(shared work.c)
target_link_libraries(shared pugmark::pugmark)
add_executable(static work.c)
target_link_libraries(static pugmark::pugmark_static)
"""


def spans_of(program, folder):
    run([program], cwd=folder, env={"PATH": os.environ["PATH"], "PUG_TRACING": "true", "PUG_TRACE_DIR": str(folder / "traces")})
    (trace,) = (folder / "traces").glob("*.json")
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    trace.unlink()
    return [event["name"] for event in events if event["ph"] == "X"]


def cmake_finds_it(installed):
    major, minor, _ = installed.version().split(".")
    folder = installed.root / "cmake"
    folder.mkdir()
    (folder / "work.c").write_text(manual_program(), encoding="utf-8")
    (folder / "CMakeLists.txt").write_text(CMAKE_LISTS.format(version=f"{major}.{minor}"), encoding="utf-8")
    run(["cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={installed.prefix}", "-DCMAKE_BUILD_TYPE=Release"])
    run(["cmake", "--build", folder / "build"])
    for program in ("shared", "static"):
        assert spans_of(folder / "build" / program, folder).count("work.step") == 3
    too_new = folder / "new"
    too_new.mkdir()
    (too_new / "CMakeLists.txt").write_text(CMAKE_LISTS.format(version=f"{major}.{int(minor) + 1}"), encoding="utf-8")
    (too_new / "work.c").write_text(manual_program(), encoding="utf-8")
    done = subprocess.run(["cmake", "-G", "Ninja", "-S", too_new, "-B", too_new / "build", f"-DCMAKE_PREFIX_PATH={installed.prefix}"],
                          capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "compatible with requested" in done.stderr, done.stderr


MESON_BUILD = """project('work', 'c')
executable('work', 'work.c', dependencies: dependency('pugmark'{fallback}))
"""


def meson_finds_it(installed):
    folder = installed.root / "meson"
    folder.mkdir()
    (folder / "work.c").write_text(manual_program(), encoding="utf-8")
    (folder / "meson.build").write_text(MESON_BUILD.format(fallback=""), encoding="utf-8")
    run(["meson", "setup", folder / "build", folder, f"--pkg-config-path={installed.relocated_pkgconfig()}"])
    run(["ninja", "-C", folder / "build"])
    assert spans_of(folder / "build/work", folder).count("work.step") == 3


def meson_takes_it_in(installed):
    """As a subproject, where of all it could build only the library is built."""
    folder = installed.root / "subproject"
    (folder / "subprojects/pugmark").mkdir(parents=True)
    tree = folder / "subprojects/pugmark"
    for name in ("meson.build", "meson_options.txt", "include", "src", "packaging", "tools"):
        (tree / name).symlink_to(SOURCE / name)
    (folder / "work.c").write_text(manual_program(), encoding="utf-8")
    (folder / "meson.build").write_text(MESON_BUILD.format(fallback=", fallback: 'pugmark'"), encoding="utf-8")
    run(["meson", "setup", folder / "build", folder, "--force-fallback-for=pugmark"])
    run(["ninja", "-j2", "-C", folder / "build", "work"])
    assert spans_of(folder / "build/work", folder).count("work.step") == 3
    targets = json.loads(run(["meson", "introspect", "--targets", folder / "build"]))
    built = {target["name"] for target in targets}
    assert "pugmark" in built and not built & {"store", "web", "net", "cli"}, built


def readme_program():
    text = (SOURCE / "README.md").read_text(encoding="utf-8")
    return next(block for block in re.findall(r"^```c\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "int main" in block)


def manual_program():
    text = (SOURCE / "docs/man/pugmark.3").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"^\.Bd -literal\n(.*?)^\.Ed", text, re.MULTILINE | re.DOTALL) if "int main" in b)
    return block.replace("\\(dq", '"').replace("\\e", "\\")


def has_everything(installed):
    for path in ("bin/pugmark", "include/pugmark/pugmark.h", "share/man/man1/pugmark.1", "share/man/man3/pugmark.3"):
        assert list(installed.prefix.glob(path + "*")), f"{path} is not there"
    assert list(installed.prefix.glob("libexec/pugmark/libpugmark-run.so")), "libpugmark-run.so is not in libexec"
    said = run([installed.prefix / "bin/pugmark", "--version"])
    assert re.fullmatch(r"pugmark \d+\.\d+\.\d+\n", said), said


def runs_a_program(installed):
    folder = installed.root / "run"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PUG_", "OTEL_", "LD_"))}
    said = run([installed.prefix / "bin/pugmark", "run", "-o", folder, "--", "sqlite3", ":memory:", "SELECT 7"], env=environment)
    assert said.startswith("7\n") and "1 span of 1 process" in said, said
    assert len(list(folder.glob("*.json"))) == 1


def exported_names(installed):
    """Neither form may take a name that belongs to the program it is linked into. One name is not ours to choose: the
    one by which a profiler outside finds the thread context (OpenTelemetry)."""
    for library, flag in (("libpugmark.so", "-D"), ("libpugmark.a", "-g")):
        said = run(["nm", flag, "--defined-only", installed.libdir / library])
        names = {line.split()[-1] for line in said.splitlines() if re.match(r"^[0-9a-f]+ [A-Z] ", line)}
        names = {name.split("@")[0] for name in names}
        foreign = sorted(n for n in names - {"otel_thread_ctx_v1"} if not n.startswith(("pug_", "pug__", "PUGMARK_")))
        assert names and not foreign, f"{library} has {foreign or 'no names at all'}"


def main():
    with tempfile.TemporaryDirectory(prefix="pugmark-install-") as folder:
        installed = Installed(pathlib.Path(folder))
        cases = [
            ("what is needed is installed", lambda: has_everything(installed)),
            ("what `pugmark run` preloads finds the library", lambda: runs_a_program(installed)),
            ("the library's names are its own", lambda: exported_names(installed)),
            ("the README's program works", lambda: installed.compile_and_run(readme_program(), "hello", "cc")),
            ("and with clang", lambda: installed.compile_and_run(readme_program(), "hello", "clang")),
            ("and as C++", lambda: installed.compile_and_run(readme_program(), "hello", "g++")),
            ("and with the static library", lambda: installed.compile_and_run(readme_program(), "hello", "cc", "static")),
            ("the manual's program works", lambda: installed.compile_and_run(manual_program(), "work", "cc")),
            ("CMake finds it, shared and static", lambda: cmake_finds_it(installed)),
            ("Meson finds it", lambda: meson_finds_it(installed)),
            ("Meson builds it as a subproject", lambda: meson_takes_it_in(installed)),
        ]
        return tap.run_tests([(name, lambda work, c=case: c()) for name, case in cases])


if __name__ == "__main__":
    sys.exit(main())
