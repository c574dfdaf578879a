#!/usr/bin/python3
"""find_secrets.py SHOWN DIR...: looks for each secret that a run has shown, a line each in the file SHOWN, in every file
below the directories: as text, and its 32 bytes raw, in hex, base64 and base32. The key of the cluster may stand in
`cluster.key`, which is the file that holds it. Fails if anything is found."""
import base64
import os
import sys

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


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


def forms(shown):
    """What to look for, of one secret."""
    if shown.startswith("sk-"):
        part = shown.split("-")[3]
    elif shown.startswith("skr1-"):
        part = shown[5:].replace("-", "")
    else:
        raise SystemExit("not a secret of a known form: " + shown[:8] + "...")
    raw = crockford(part)[:32]
    if len(raw) != 32:
        raise SystemExit("a secret of %d bytes: %s..." % (len(raw), shown[:10]))
    text = part[:51].encode()
    return {
        "text": text,
        "raw": raw,
        "hex": raw.hex().encode(),
        "base64": base64.b64encode(raw).rstrip(b"=")[:42],
        "base64url": base64.urlsafe_b64encode(raw).rstrip(b"=")[:42],
    }


def main():
    secrets = [line.strip() for line in open(sys.argv[1], encoding="ascii") if line.strip()]
    found = files = 0
    for top in sys.argv[2:]:
        for where, _, names in os.walk(top):
            for name in names:
                path = os.path.join(where, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                files += 1
                data = open(path, "rb").read()
                lower = data.lower()
                for secret in secrets:
                    if secret.startswith("skr1-") and name == "cluster.key":
                        continue
                    for form, needle in forms(secret).items():
                        if needle in (data if form in ("raw", "base64", "base64url") else lower):
                            print(f"{path}: {secret[:10]}... as {form}")
                            found += 1
    print(f"{len(secrets)} secrets, {files} files, found {found} times")
    return 1 if found or not secrets or not files else 0


if __name__ == "__main__":
    sys.exit(main())
