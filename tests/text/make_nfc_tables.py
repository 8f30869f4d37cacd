#!/usr/bin/env python3
"""Writes include/circuit/text/nfc_tables.hpp, or nfkc_tables.hpp, from the Unicode tables of the Python that runs it.

  make_nfc_tables.py > include/circuit/text/nfc_tables.hpp
  make_nfc_tables.py nfkc > include/circuit/text/nfkc_tables.hpp
"""
import sys
import unicodedata

HANGUL = range(0xAC00, 0xD7A4)


def canonical(c):
    parts = unicodedata.decomposition(chr(c)).split()
    return [] if not parts or parts[0].startswith("<") else [int(p, 16) for p in parts]


def first_of(c):
    parts = canonical(c)
    return first_of(parts[0]) if parts else c


def ranges(points):
    """[first, last, value] of the runs in a map from code points to values."""
    runs = []
    for c in sorted(points):
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == points[c]:
            runs[-1][1] = c
        else:
            runs.append([c, c, points[c]])
    return runs


def table(kind, name, comment, rows, width=120):
    lines, line = [], "   "
    for row in rows:
        text = " {" + ", ".join(row) + "}," if len(row) > 1 else f" {row[0]},"
        if len(line) + len(text) > width:
            lines.append(line)
            line = "   "
        line += text
    print(f"/// {comment}\ninline constexpr {kind} {name}[] = {{\n" + "\n".join([*lines, line]).rstrip(",") + "};\n")


def literal(text, width=116):
    """Lines of a C++ string of char32_t."""
    spell = lambda c: (c if 0x20 <= ord(c) < 0x7F and c not in "\"\\?" else
                       f"\\{ord(c):03o}" if ord(c) < 0xA0 else f"\\u{ord(c):04X}" if ord(c) < 0x10000 else f"\\U{ord(c):08X}")
    lines, line = [], ""
    for c in text:
        if len(line) + len(spell(c)) > width:
            lines.append(line)
            line = ""
        line += spell(c)
    return "\n".join(f'    U"{part}"' for part in [*lines, line])


def compatibility():
    """Characters that compatibility decomposition changes more than the canonical one, as runs of neighbours whose
    decompositions are as long and follow each other in one text."""
    runs, pool = [], ""
    for c in range(0x110000):
        parts = unicodedata.normalize("NFKD", chr(c))
        if 0xD800 <= c < 0xE000 or parts == unicodedata.normalize("NFD", chr(c)):
            continue
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == len(parts):
            runs[-1][1] = c
        else:
            runs.append([c, c, len(parts), len(pool)])
        pool += parts
    print(f"""// clang-format off
#pragma once

#include <cstdint>

/// Compatibility decomposition, Unicode {unicodedata.unidata_version}; written by tests/text/make_nfc_tables.py.
namespace circuit::detail::nfc {{

struct CompatibilityRun {{ char32_t first, last; std::uint16_t length, from; }};
""")
    table("CompatibilityRun", "compatibility_runs", "Neighbours with decompositions of one length, the first's beginning at `from` of "
          "the text below.", [[hex(a).upper().replace("X", "x"), hex(b).upper().replace("X", "x"), str(n), str(i)]
                              for a, b, n, i in runs])
    print(f"/// Full decompositions, one after another.\ninline constexpr char32_t compatibility_text[] =\n{literal(pool)};\n")
    print("}  // namespace circuit::detail::nfc")


def main():
    if "nfkc" in sys.argv[1:]:
        return compatibility()
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    decompositions = [(c, *canonical(c)) for c in points if c not in HANGUL and canonical(c)]
    primary = {}
    for i, (c, *parts) in enumerate(decompositions):
        if len(parts) == 2 and unicodedata.normalize("NFC", chr(c)) == chr(c):
            primary[tuple(parts)] = i
    classes = {c: unicodedata.combining(chr(c)) for c in points if unicodedata.combining(chr(c))}
    seconds = {second for _, second in primary} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    joining = {c: 1 for c in points if first_of(c) in classes or first_of(c) in seconds}

    print(f"""// clang-format off
#pragma once

#include <cstdint>

/// Canonical decomposition and composition, Unicode {unicodedata.unidata_version}; written by tests/text/make_nfc_tables.py.
namespace circuit::detail::nfc {{

struct Decomposition {{ char32_t from, first, second; }};  // second is 0 where one character stands for another
struct Run {{ char32_t first, last; std::uint8_t value; }};
""")
    hexed = lambda numbers: [hex(n).upper().replace("X", "x") if n else "0" for n in numbers]
    table("Decomposition", "decompositions", "By `from`; Hangul syllables, which follow a rule, are left out.",
          [hexed((*d, 0)[:3]) for d in decompositions])
    table("std::uint16_t", "compositions", "Places in `decompositions` of the pairs that compose, by (first, second).",
          [[str(primary[pair])] for pair in sorted(primary)])
    table("Run", "combining_classes", "Runs of characters with a combining class other than 0.",
          [[*hexed(run[:2]), str(run[2])] for run in ranges(classes)])
    table("Run", "joining", "Runs of characters that may change together with the one before; the value is 1.",
          [[*hexed(run[:2]), "1"] for run in ranges(joining)])
    print("}  // namespace circuit::detail::nfc")


if __name__ == "__main__":
    sys.exit(main())
