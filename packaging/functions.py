#!/usr/bin/env python3
"""Measures which functions a process of zg-tokend runs, and which large constants it never reads, and writes
functions.txt, from which the linker puts the ones side by side and the others apart (build.rs). The list has
the beginnings of the functions' names that no other function has, each with the hashes of those that were
run: many functions of a generic one have the same name.

The hashes differ between a build with the feature `fleet`, as in the packages, and one without it: the list
has those of both.

usage: packaging/functions.py

Needs valgrind, openssl and lld, which rustc has on x86-64. A name in functions.txt that is no longer
there does no harm, nor does a new function that is missing in it. Run it before a release."""

import bisect
import collections
import concurrent.futures
import ctypes
import errno
import functools
import http.server
import json
import os
import pathlib
import re
import secrets
import signal
import ssl
import struct
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LIST = HERE / "functions.txt"
TARGET = HERE.parent / "target"
PROGRAM = TARGET / "release/zg-tokend"
MAP = TARGET / "functions.map"
HEAD = """\
# Made by packaging/functions.py: the functions that commands run, by the beginnings of the names of their
# sections, and the hashes that end the names. Empty lines part those that only `status`, `token` and `once` with
# nothing due run; those that they and `run` have in common; the others of `run` with a refresh over HTTPS; and the
# others of such a refresh in `once`. The last part has the sections of large constants that none
# of them reads.
"""

# Smaller constants are left where they are, whether they are read or not.
LARGE = 512

# Parts of names that change from build to build: hashes of functions, and of the standard library's crates.
CHANGES = [(r"17h[0-9a-f]{16}E", "17h*"), (r"Cs[0-9A-Za-z]+_(?=\d)", "Cs*")]


def build(features):
    """With symbols, a map, and all functions in .text, where valgrind looks for them."""
    LIST.write_text(HEAD)
    command = ["cargo", "rustc", "--release", "--locked", "--bin", "zg-tokend", "--target-dir", str(TARGET), *features]
    command += ["--", "-C", "strip=none", "-C", f"link-arg=-Wl,-Map={MAP}"]
    subprocess.run(command, cwd=HERE.parent, check=True)
    # Address, size and name of each section, in the order of addresses.
    line = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s+\S.*:\((\.(?:text|rodata)[^)]*)\)$")
    found = (line.match(text) for text in open(MAP))
    return sorted((int(m[1], 16), int(m[2], 16), m[3]) for m in found if m)


granted = threading.Event()


class Grants(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        tokens = {key: secrets.token_urlsafe() for key in ("access_token", "refresh_token")}
        reply = json.dumps(tokens | {"token_type": "Bearer", "expires_in": 36000}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
        granted.set()

    def log_message(self, *_):
        pass


def serve(home):
    """A token endpoint over TLS, and a bundle with its certificate."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{home}/key"]
    request = ["openssl", "req", "-x509", *key, "-out", f"{home}/cert", *names]
    subprocess.run([*request, "-addext", "basicConstraints=critical,CA:false"], check=True, capture_output=True)
    bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    (home / "bundle").write_text(bundle + (home / "cert").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "cert", home / "key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grants)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://localhost:{server.server_port}/token"


def hide_auxv():
    """Lets prctl(PR_GET_AUXV) fail, by seccomp(2): valgrind has no vDSO, and would pass on that there is one."""

    def filter(code, yes, no, value):
        return struct.pack("HBBI", code, yes, no, value)

    program = filter(0x20, 0, 0, 0) + filter(0x15, 0, 3, 157)  # the system call: prctl?
    program += filter(0x20, 0, 0, 16) + filter(0x15, 0, 1, 0x41555856)  # its first argument: PR_GET_AUXV?
    program += filter(0x06, 0, 0, 0x00050000 | errno.EINVAL) + filter(0x06, 0, 0, 0x7FFF0000)
    buffer = ctypes.create_string_buffer(program)
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter = (38, 1, 0, 0, 0), (22, 2, pointer, 0, 0)
    if libc.prctl(*no_new_privileges) or libc.prctl(*set_filter):
        raise OSError(ctypes.get_errno(), "prctl")


def start(home, command, *options):
    """Runs the command in valgrind."""
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "SSL_CERT_FILE": f"{home}/bundle"}
    env["PATH"] = os.environ["PATH"]
    program = [PROGRAM, command, "--config", home / "config.toml"]
    granted.clear()
    return subprocess.Popen(["valgrind", *options, *program], env=env, stdout=subprocess.DEVNULL, preexec_fn=hide_auxv)


def finish(process, command):
    """Waits for the end of the command. `run` refreshes twice, and is ended when it is idle: it gives the address at
    which the program lies in the process."""
    address = None
    if command == "run":
        for next_signal in signal.SIGUSR1, signal.SIGTERM:
            granted.wait()
            granted.clear()
            time.sleep(20)
            maps = open(f"/proc/{process.pid}/maps").read()
            address = int(re.search(rf"([0-9a-f]+)-.* {PROGRAM}", maps)[1], 16)
            process.send_signal(next_signal)
    if process.wait():
        raise SystemExit(f"{command} failed")
    return address


def addresses(home, command):
    """The addresses of the instructions that the command runs."""
    finish(start(home, command, "--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={home}/calls"), command)
    objects, ours, address, found = {}, False, 0, set()
    for line in open(home / "calls"):
        # ob=(3) PATH at first, then ob=(3).
        if m := re.match(r"ob=\((\d+)\)(?: (.*))?", line):
            ours = objects.setdefault(m[1], m[2]) == str(PROGRAM)
        elif m := re.match(r"cob=\((\d+)\) (.*)", line):
            objects[m[1]] = m[2]
        elif line[0] in "+-*0123456789":
            # 0x1234, or the distance to the address of the line before; calls= lines go in between.
            place = line.split()[0]
            if place != "*":
                address = int(place, 0) + (address if place[0] in "+-" else 0)
            if ours:
                found.add(address)
    return found


def reads(home, command):
    """The addresses of the data that the command reads; for `run`, also the address of the program in the process."""
    trace = home / f"reads-{command}"
    os.mkfifo(trace)
    process = start(home, command, "--tool=lackey", "--trace-mem=yes", "--basic-counts=no", f"--log-file={trace}")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        end = pool.submit(finish, process, command)
        # ` L 1ffeffe790,8` is a load. Millions of them.
        found = {line[3 : line.index(b",")] for line in open(trace, "rb") if line[:2] in (b" L", b" M")}
        return {int(address, 16) for address in found}, end.result()


def unread(home, constants):
    """The names of the large constants that no command reads. Those of this crate that have no name are left
    where they are: their numbers change with each change of its source."""
    read, base = reads(home, "run")
    read = sorted(read.union(*(reads(home, command)[0] for command in ("once", "status", "token"))))

    def is_read(address, size):
        # A load may begin before the section, by the width of a register.
        place = bisect.bisect(read, base + address - 32)
        return place < len(read) and read[place] < base + address + size

    def stable(name):
        name = functools.reduce(lambda name, change: re.sub(*change, name), CHANGES, name)
        return name if ".Lanon." in name else re.sub(r"\.\d+$", ".*", name)

    modules = collections.Counter(name.split(".")[4] for _, _, name in constants if ".Lanon." in name)
    own = modules.most_common(1)[0][0]
    cold = [size >= LARGE and f".Lanon.{own}." not in name and not is_read(address, size) for address, size, name in constants]
    taken = {stable(name) for (_, _, name), cold in zip(constants, cold) if not cold}
    print(sum(size for (_, size, _), cold in zip(constants, cold) if cold) // 1024, "KiB of constants are not read")
    return {stable(name): set() for (_, _, name), cold in zip(constants, cold) if cold and stable(name) not in taken}


def measure(features):
    """The parts of the list: names, each with its hashes."""
    sections = build(features)
    constants = [section for section in sections if section[2].startswith(".rodata")]
    sections = [section for section in sections if section[2].startswith(".text")]
    starts = [start for start, _, _ in sections]
    # And the numbers of copies.
    changes = [*CHANGES, (r"\.\d+$", ".*")]
    stable = [functools.reduce(lambda name, change: re.sub(*change, name), changes, name) for _, _, name in sections]

    def names(found):
        for address in found:
            place = bisect.bisect(starts, address) - 1
            # `.text` alone is assembly.
            if address < starts[place] + sections[place][1] and stable[place] != ".text":
                yield place

    def lines(wanted, others):
        """The shortest beginnings of the names that no other function has, with the hashes."""
        others, hashes = sorted(others), {}
        for place in wanted:
            name = stable[place]
            near = bisect.bisect(others, name)
            near = others[max(near - 1, 0) : near + 1]
            beginning = name[: max((len(os.path.commonprefix([name, other])) for other in near), default=0) + 1]
            # A beginning with a * in it may stand for anything.
            beginning = name if beginning == name or "Cs*" in name else beginning.rstrip("*") + "*"
            hash = re.search(r"17h([0-9a-f]{16})E", sections[place][2])
            hashes.setdefault(beginning, set()).update(hash.groups() if hash else ())
        return hashes

    def stable_names(places):
        return {stable[place] for place in places}

    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        config = f'token_endpoint = "{serve(home)}"\nclient_id = "c"\nstate_dir = "{home}/state"\n'
        config += f'[accounts.a]\nrefresh_token = "seed"\ntoken_file = "{home}/token"\n'
        (home / "config.toml").write_text(config)
        (home / "config.toml").chmod(0o600)
        once = set(names(addresses(home, "once")))
        short = set().union(*(names(addresses(home, command)) for command in ("once", "status", "token")))
        (home / "config.toml").write_text(config.replace("seed", "new"))
        run = set(names(addresses(home, "run")))
        (home / "config.toml").write_text(config.replace("seed", "third"))
        cold = unread(home, constants)
    parts = [short - run, short & run, run - short, once - run - short]
    for part in parts:
        print(len(part), "functions,", sum(sections[place][1] for place in part) // 1024, "KiB")
    rest = set(stable).difference(*map(stable_names, parts))
    # A name that an earlier part has is taken by then.
    later = [set().union(rest, *map(stable_names, parts[place + 1 :])) for place in range(len(parts))]
    return [*(lines(part, others - stable_names(part)) for part, others in zip(parts, later)), cold]


def main():
    parts = {}, {}, {}, {}, {}
    for features in [], ["--features", "fleet"]:
        for part, measured in zip(parts, measure(features)):
            for name, hashes in measured.items():
                part.setdefault(name, set()).update(hashes)
    texts = ("\n".join(" ".join([name, *sorted(part[name])]) for name in sorted(part)) for part in parts)
    LIST.write_text(HEAD + "\n\n".join(texts) + "\n")


main()
