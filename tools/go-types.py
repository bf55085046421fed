#!/usr/bin/env python3
"""Prints the protobuf fields of Kubernetes' types, read from the type information that Go leaves
in a program: `tools/go-types.py target/tools/kubectl-new/usr/bin/kubectl > xtask/data/messages.txt`.

No package of a registry has them for the newest release, and the numbers have to be upstream's to
the digit. A line for each type: its definition's name, then `field=number`. An asterisk marks a
number, a text or a truth that JSON shows even where it is zero, since it is a pointer or is never
left out. `number(...)` is a struct that JSON flattens into its owner.
"""

import re
import struct
import sys

PACKAGES = re.compile(
    r"k8s\.io/(api/\w+/v\d+|apimachinery/pkg/(apis/meta/v1|runtime|util/intstr))$")
KIND_BOOL, KIND_INT32, KIND_INT64, KIND_STRING = 1, 5, 6, 24
KIND_POINTER, KIND_STRUCT = 22, 25
SCALARS = {KIND_BOOL, KIND_INT32, KIND_INT64, KIND_STRING}
# A list that is a message of its own on the wire.
WRAPPED_LIST = "Verbs"
# abi.Type: its size, and where kind, flags, the name's offset and, of a pointer, the element are.
TYPE_BYTES, FLAGS_AT, KIND_AT, NAME_AT, ELEMENT_AT = 48, 20, 23, 40, 48
FLAG_UNCOMMON = 1


class Program:
    """A program's memory as it is loaded, and the types in it."""

    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        table, count = self.unpack("<Q", 32)[0], self.unpack("<H", 56)[0]
        headers = [self.unpack("<IIQQQQQQ", table + 56 * i) for i in range(count)]
        self.segments = [(h[2], h[3], h[5]) for h in headers if h[0] == 1]
        self.structs = dict(self.find_structs())
        self.names = self.find_names()

    def unpack(self, form, at):
        return struct.unpack_from(form, self.bytes, at)

    def offset(self, address):
        for offset, start, size in self.segments:
            if start <= address < start + size:
                return offset + address - start
        return None

    def varint(self, at):
        value = shift = 0
        while True:
            byte = self.bytes[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return value, at

    def name(self, address):
        """abi.Name: flags, then a length and text, and the same of a tag."""
        at = self.offset(address)
        if at is None or self.bytes[at] > 15:
            return None
        length, start = self.varint(at + 1)
        if not 0 < length < 400:
            return None
        text, tag = self.bytes[start:start + length], b""
        if self.bytes[at] & 2:
            size, begin = self.varint(start + length)
            tag = self.bytes[begin:begin + size]
        try:
            return text.decode(), tag.decode()
        except UnicodeDecodeError:
            return None

    def kind(self, at):
        return self.bytes[at + KIND_AT] & 31

    def find_structs(self):
        """Types of structs with protobuf tags: a pointer to fields and their number, twice."""
        begin, _, size = self.segments[-1]
        for at in range(begin, begin + size - 80, 8):
            if self.kind(at) != KIND_STRUCT:
                continue
            fields, count, again = self.unpack("<QQQ", at + 56)
            fields = self.offset(fields)
            if not 0 < count == again < 300 or fields is None:
                continue
            found = list(self.fields(fields, count))
            if None not in found and any("protobuf:" in tag for _, tag, _ in found):
                yield at, found

    def fields(self, at, count):
        for i in range(count):
            name, kind = self.unpack("<QQ", at + 24 * i)
            name, kind = self.name(name), self.offset(kind)
            yield None if name is None or kind is None else (*name, kind)
            if name is None:
                return

    def find_names(self):
        """What offsets of names count from: told by a type whose fields nobody else has."""
        pod = next(at for at, fields in self.structs.items()
                   if [f[0] for f in fields[:3]] == ["Volumes", "InitContainers", "Containers"]
                   and "protobuf:" in fields[0][1])
        marker, at = b"*v1.PodSpec", -1
        while True:
            at = self.bytes.index(marker, at + 1)
            if self.bytes[at - 1] != len(marker):
                continue
            start = next(s + at - 2 - o for o, s, size in self.segments if o <= at < o + size)
            base = start - self.unpack("<i", pod + NAME_AT)[0]
            some = [self.name(base + self.unpack("<i", s + NAME_AT)[0])
                    for s in list(self.structs)[:50]]
            if sum(name is not None and name[0].startswith("*") for name in some) > len(some) / 2:
                return base

    def type_name(self, at):
        name = self.name(self.names + self.unpack("<i", at + NAME_AT)[0])
        return name[0].lstrip("*").split(".")[-1] if name else ""

    def package(self, at):
        if not self.bytes[at + FLAGS_AT] & FLAG_UNCOMMON:
            return ""
        name = self.name(self.names + self.unpack("<i", at + 80)[0])
        return name[0] if name else ""


def line(program, at):
    parts = []
    for _, tag, kind in program.structs[at]:
        number = re.search(r'protobuf:"\w+,(\d+)', tag)
        json = re.search(r'json:"([^",]*)([^"]*)"', tag)
        if not number or not json:
            continue
        number, name = int(number[1]), json[1]
        if not name:
            parts.append((number, f"{number}({line(program, kind)})" if kind in program.structs else ""))
            continue
        if program.type_name(kind) == WRAPPED_LIST:
            parts.append((number, f"{number}({name}=1)"))
            continue
        shown = "omitempty" not in json[2]
        if program.kind(kind) == KIND_POINTER:
            kind, shown = program.offset(program.unpack("<Q", kind + ELEMENT_AT)[0]), True
        mark = "*" if shown and program.kind(kind) in SCALARS else ""
        parts.append((number, f"{name}={number}{mark}"))
    return " ".join(part for _, part in sorted(parts) if part)


def main():
    program = Program(sys.argv[1])
    lines = {}
    for at in program.structs:
        package = program.package(at)
        if PACKAGES.match(package):
            name = f"{package.replace('k8s.io', 'io.k8s').replace('/', '.')}.{program.type_name(at)}"
            lines[name] = line(program, at)
    for name in sorted(lines):
        if lines[name]:
            print(name, lines[name])


main()
