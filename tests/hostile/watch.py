"""What a command opened, wrote, connected to and held: seen below Python, so that FFmpeg's C code is seen, too.

A small library is preloaded that notes every open, socket and unlink before it goes on. Where there is no C compiler,
the tests that need it skip.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from visavis.pipeline.engine.memory import peak_mb

PROJECT = Path(__file__).parents[2]

SHIM = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *what, const char *name) {
    static int out = -2;
    if (out == -2) {
        const char *log = getenv("WATCH_LOG");
        out = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    }
    char line[4200];
    int n = snprintf(line, sizeof line, "%s\t%s", what, name ? name : "");
    if (n >= (int)sizeof line) n = sizeof line - 1;
    for (int i = 0; i < n; i++) if (line[i] == '\n') line[i] = ' ';
    line[n++] = '\n';
    if (out >= 0) syscall(SYS_write, out, line, n);
}
static const char *at(int folder, const char *path, char *full) {
    if (path && path[0] != '/' && folder != AT_FDCWD) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        int n = readlink(link, full, 4000);
        if (n > 0) { full[n] = '/'; strncpy(full + n + 1, path, 90); full[n + 91] = 0; return full; }
    }
    return path;
}
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); \
    mode = va_arg(a, int); va_end(a); }
#define SEEN(path) note((flags & O_ACCMODE) == O_RDONLY ? "read" : "write", path)
#define NEXT(name) static __typeof__(&name) next; if (!next) next = dlsym(RTLD_NEXT, #name)
int open(const char *path, int flags, ...) { MODE NEXT(open); SEEN(path); return next(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE NEXT(open64); SEEN(path); return next(path, flags, mode); }
int openat(int d, const char *path, int flags, ...) {
    MODE NEXT(openat); char full[4200]; SEEN(at(d, path, full)); return next(d, path, flags, mode); }
int openat64(int d, const char *path, int flags, ...) {
    MODE NEXT(openat64); char full[4200]; SEEN(at(d, path, full)); return next(d, path, flags, mode); }
FILE *fopen(const char *path, const char *m) {
    NEXT(fopen); note(*m == 'r' ? "read" : "write", path); return next(path, m); }
FILE *fopen64(const char *path, const char *m) {
    NEXT(fopen64); note(*m == 'r' ? "read" : "write", path); return next(path, m); }
int unlink(const char *path) { NEXT(unlink); note("unlink", path); return next(path); }
int unlinkat(int d, const char *path, int flags) {
    NEXT(unlinkat); char full[4200]; note("unlink", at(d, path, full)); return next(d, path, flags); }
static void address(const char *what, const struct sockaddr *a) {
    char text[120] = "other";
    if (a->sa_family == AF_UNIX) return;
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *i = (const void *)a;
        char ip[64]; inet_ntop(AF_INET, &i->sin_addr, ip, sizeof ip);
        snprintf(text, sizeof text, "%s:%d", ip, ntohs(i->sin_port));
    } else if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *i = (const void *)a;
        char ip[64]; inet_ntop(AF_INET6, &i->sin6_addr, ip, sizeof ip);
        snprintf(text, sizeof text, "[%s]:%d", ip, ntohs(i->sin6_port));
    } else return;
    note(what, text);
}
int connect(int s, const struct sockaddr *a, socklen_t n) {
    NEXT(connect); address("connect", a); return next(s, a, n); }
int bind(int s, const struct sockaddr *a, socklen_t n) { NEXT(bind); address("bind", a); return next(s, a, n); }
ssize_t sendto(int s, const void *b, size_t n, int f, const struct sockaddr *a, socklen_t l) {
    NEXT(sendto); if (a) address("connect", a); return next(s, b, n, f, a, l); }
int execve(const char *path, char *const argv[], char *const env[]) {
    NEXT(execve); note("run", path); return next(path, argv, env); }
"""


def shim(folder: Path) -> Path:
    """Compile the library that is preloaded."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, so nothing can be preloaded to watch what is opened")
    (folder / "watch.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-w", "-o", folder / "watch.so", folder / "watch.c", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "watch.so"


@dataclass
class Told:
    """What a command did. peak_mb: of the largest of its processes."""

    argv: Sequence[str]
    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float
    seen: dict[str, list[str]] = field(default_factory=dict)  # read, write, unlink, connect, bind, run

    def faults(self, codes: tuple[int, ...]) -> Iterator[str]:
        """What no input may bring about."""
        if self.code not in codes:
            yield f"ended with {self.code}, not {codes}"
        if "Traceback" in self.out + self.err:
            yield "printed a traceback"
        if any(not (c.isprintable() or c in "\n\t") for c in self.out + self.err):
            yield "printed control characters"

    def last_words(self) -> str:
        """The end of what it said, for messages of tests."""
        return " ".join((self.err or self.out).split())[-400:]


class Driver:
    """A process that carries out many commands in turn, watched; it dies only if a command kills it."""

    def __init__(self, library: Path, folder: Path, memory_mb: int = 8000) -> None:
        self._log = folder / "watch.log"
        self._log.touch()
        self._folder, self._memory_mb = folder, memory_mb
        self._errors = (folder / "driver.err").open("ab")
        path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        (folder / "home").mkdir()
        self._environment = {
            "HOME": str(folder / "home"),
            "LD_PRELOAD": str(library),
            "WATCH_LOG": str(self._log),
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",  # or what it imports for the first time is written beside it
            "COLUMNS": "200",
        }
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.driver", str(self._memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder,
            env=os.environ | self._environment,
            text=True,
        )

    def run(self, argv: Sequence[str | Path], seconds: float = 120) -> Told:
        """Carry out a command. A driver that dies or is silent for so long ends it with its signal; the next has a new
        one.
        """
        words = [str(word) for word in argv]
        before = self._log.stat().st_size
        began = time.monotonic()
        line = self._ask(json.dumps({"argv": words, "seconds": seconds}), seconds + 30)
        told = json.loads(line) if line else {"code": -abs(self._process.wait() or 255), "out": "", "err": "died"}
        if not line:
            self.close()
            self._process = self._start()
        peak = told.get("peak_mb", 0.0)
        seconds = time.monotonic() - began
        return Told(words, told["code"], told["out"], told["err"], seconds, peak, self._seen_since(before))

    def _ask(self, task: str, seconds: float) -> str:
        """The answer to a task; empty if the process died, or was stuck where no signal helps."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not ready:
            self._process.kill()
        return self._process.stdout.readline()

    def _seen_since(self, position: int) -> dict[str, list[str]]:
        seen: dict[str, list[str]] = {}
        with self._log.open(errors="surrogateescape") as log:
            log.seek(position)
            for entry in log:
                what, _, name = entry.rstrip("\n").partition("\t")
                seen.setdefault(what, []).append(name)
        return seen

    @property
    def children(self) -> list[psutil.Process]:
        """Processes that commands have left behind."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def peak_with_children_mb() -> float:
    """Of this process and its children that ended."""
    return max(peak_mb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
