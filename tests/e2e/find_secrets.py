#!/usr/bin/python3
"""find_secrets.py [--keys DIR]... SHOWN TOP...: looks for secrets in every file below the directories TOP: for each that
a run has shown, a line each in the file SHOWN, and with --keys for the private keys that stand in the key files below
DIR. A secret is looked for as text and as its bytes: raw, hex, base64. A key file may hold its own key, and each
`cluster.key` that of the cluster. Prints where it found what; fails if anything is found."""
import base64
import errno
import os
import re
import sys

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
KEY_FILES = {"node.key", "api.key", "machine.key", "cluster.key"}


def crockford(text):
    bits = value = 0
    out = bytearray()
    for char in text:
        value = (value << 5) | ALPHABET.index(char)
        bits += 5
        if bits >= 8:
            bits -= 8
            out.append((value >> bits) & 255)
            value &= (1 << bits) - 1
    return bytes(out)


class Secret:
    """32 bytes, how they can be written, and the files that may hold them."""

    def __init__(self, name, raw, text=None, files=(), names=()):
        if len(raw) != 32:
            raise SystemExit(f"{name}: a secret of {len(raw)} bytes")
        self.name, self.raw, self.files, self.names = name, raw, set(files), set(names)
        # As it stands anywhere in a base64 text: one of three alignments, without the characters at the edges.
        self.exact = {"raw": raw}
        for shift in range(3):
            middle = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0:40]
            self.exact[f"base64, {shift}"] = middle
            self.exact[f"base64url, {shift}"] = middle.replace(b"+", b"-").replace(b"/", b"_")
        self.lower = {"hex": raw.hex().encode()}
        if text:
            self.lower["text"] = text.encode()

    def allowed(self, path):
        return path in self.files or os.path.basename(path) in self.names


def shown(line):
    if line.startswith("sk-"):
        part = line.split("-")[3]
        return Secret(line[:12] + "...", crockford(part)[:32], part[:51])
    if line.startswith("skr1-"):
        part = line[5:].replace("-", "")
        # The person's copy has hyphens every five characters.
        return Secret("the recovery string", crockford(part)[:32], part[:51], names={"cluster.key"})
    raise SystemExit("not a secret of a known form: " + line[:8] + "...")


def key_of(path):
    """The private key in a key file: PEM (PKCS #8, the octet string of 32 bytes), or hex."""
    text = open(path, encoding="ascii").read()
    if "PRIVATE KEY" in text:
        der = base64.b64decode("".join(line for line in text.splitlines() if "-----" not in line))
        return der[der.index(b"\x04\x20") + 2:][:32]
    return bytes.fromhex(re.search(r"\b[0-9a-f]{64}\b", text).group(0))


def files_below(tops):
    for top in tops:
        for where, _, names in os.walk(top):
            for name in names:
                path = os.path.join(where, name)
                if not os.path.islink(path) and os.path.isfile(path):
                    yield path


def content(path):
    """What a file holds, without its holes: a store's file is as long as its map."""
    parts, at = [], 0
    with open(path, "rb") as file:
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return b"".join(parts)
                raise
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            parts.append(os.pread(file.fileno(), end - at, at))
            at = end


def main():
    args, keys = sys.argv[1:], []
    while args and args[0] == "--keys":
        keys.append(args[1])
        args = args[2:]
    secrets = [shown(line.strip()) for line in open(args[0], encoding="ascii") if line.strip()]
    for path in files_below(keys):
        if os.path.basename(path) in KEY_FILES:
            names = {"cluster.key"} if path.endswith("/cluster.key") else ()
            secrets.append(Secret("the key in " + path, key_of(path), files={path}, names=names))
    found = files = 0
    for path in files_below(args[1:]):
        files += 1
        data = content(path)
        lower = data.lower()
        # Broken by hyphens or spaces, as the recovery string is.
        joined = re.sub(rb"[-\s]", b"", lower) if len(lower) < 1 << 20 else lower
        for secret in secrets:
            if secret.allowed(path):
                continue
            places = [(form, needle, data) for form, needle in secret.exact.items()]
            places += [(form, needle, lower) for form, needle in secret.lower.items()]
            places += [(form + ", broken up", needle, joined) for form, needle in secret.lower.items()]
            for form, needle, where in places:
                if needle in where:
                    print(f"{path}: {secret.name} as {form}")
                    found += 1
                    break
    print(f"{len(secrets)} secrets, {files} files, found {found} times")
    return 1 if found or not secrets or not files else 0


if __name__ == "__main__":
    sys.exit(main())
