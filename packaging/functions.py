#!/usr/bin/env python3
"""Measures which functions a process of zg-tokend runs, and writes functions.txt, from which the linker
puts them side by side (build.rs). The list has the beginnings of their names that no other function has,
each with the hashes of those that were run: many functions of a generic one have the same name.

The hashes differ between a build with the feature `fleet`, as in the packages, and one without it: the list
has those of both.

usage: packaging/functions.py

Needs valgrind, openssl and lld, which rustc has on x86-64. A name in functions.txt that is no longer
there does no harm, nor does a new function that is missing in it. Run it before a release."""

import bisect
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
# others of such a refresh in `once`. What a process runs lies in neighbouring parts.
"""


def build(features):
    """With symbols, a map, and all functions in .text, where valgrind looks for them."""
    LIST.write_text(HEAD)
    command = ["cargo", "rustc", "--release", "--locked", "--bin", "zg-tokend", "--target-dir", str(TARGET), *features]
    command += ["--", "-C", "strip=none", "-C", f"link-arg=-Wl,-Map={MAP}"]
    subprocess.run(command, cwd=HERE.parent, check=True)
    # Address, size and name of each function's section, in the order of addresses.
    line = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s+\S.*:\((\.text[^)]*)\)$")
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


def addresses(home, command):
    """The addresses of the instructions that the command runs. `run` refreshes twice, and is ended when it is idle."""
    config = home / "config.toml"
    valgrind = ["valgrind", "--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={home}/calls"]
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "SSL_CERT_FILE": f"{home}/bundle"}
    env["PATH"] = os.environ["PATH"]
    program = [PROGRAM, command, "--config", config]
    granted.clear()
    process = subprocess.Popen([*valgrind, *program], env=env, stdout=subprocess.DEVNULL, preexec_fn=hide_auxv)
    if command == "run":
        for next_signal in signal.SIGUSR1, signal.SIGTERM:
            granted.wait()
            granted.clear()
            time.sleep(20)
            process.send_signal(next_signal)
    if process.wait():
        raise SystemExit(f"{command} failed")
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


def measure(features):
    """The parts of the list: names, each with its hashes."""
    sections = build(features)
    starts = [start for start, _, _ in sections]
    # Without what changes: hashes of functions, of the standard library's crates, and numbers of copies.
    changes = [(r"17h[0-9a-f]{16}E", "17h*"), (r"Cs[0-9A-Za-z]+_(?=\d)", "Cs*"), (r"\.\d+$", ".*")]
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
    parts = [short - run, short & run, run - short, once - run - short]
    for part in parts:
        print(len(part), "functions,", sum(sections[place][1] for place in part) // 1024, "KiB")
    rest = set(stable).difference(*map(stable_names, parts))
    # A name that an earlier part has is taken by then.
    later = [set().union(rest, *map(stable_names, parts[place + 1 :])) for place in range(len(parts))]
    return [lines(part, others - stable_names(part)) for part, others in zip(parts, later)]


def main():
    parts = {}, {}, {}, {}
    for features in [], ["--features", "fleet"]:
        for part, measured in zip(parts, measure(features)):
            for name, hashes in measured.items():
                part.setdefault(name, set()).update(hashes)
    texts = ("\n".join(" ".join([name, *sorted(part[name])]) for name in sorted(part)) for part in parts)
    LIST.write_text(HEAD + "\n\n".join(texts) + "\n")


main()
