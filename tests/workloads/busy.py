"""Keeps CPython busy in its evaluation loop and in its C parts: recursion, sorting with a Python key, json, re, hashing."""

import hashlib
import json
import re


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def by_last_digit(value):
    return value % 10, value


def document(seed):
    return {"values": [(seed * 31 + i) % 997 for i in range(500)], "name": "n%d" % seed, "inner": {"deep": [seed] * 20}}


def work(seed):
    fibonacci(17)
    sorted(document(seed)["values"], key=by_last_digit)
    text = json.dumps(document(seed))
    json.loads(text)
    re.findall(r"(\d+), (\d+)", text)
    hashlib.sha256(text.encode() * 20).hexdigest()


turn = 0
while True:
    work(turn)
    turn += 1
