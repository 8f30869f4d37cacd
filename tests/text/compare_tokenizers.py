#!/usr/bin/env python3
"""Checks that the C++ tokenizer agrees with the Python package `tokenizers` on 10,000 lines of mixed Unicode.

A byte-level BPE with GPT-2's settings is trained here on the names of the Unicode characters. Every assigned code
point occurs in some line, in the company of contractions, digits of many scripts, all kinds of white space and special
tokens. Code points that either side's Unicode tables do not know are left out and counted. Needs: pip install
tokenizers, a C++20 compiler, PCRE2 and nlohmann json.

  compare_tokenizers.py                    compares; exits with 1 on the first disagreement
  compare_tokenizers.py --tokenizer FILE   compares on this tokenizer.json instead of a new one
  compare_tokenizers.py --write FOLDER     also stores the tokenizer and a few hundred lines for tokenizer_test.cpp
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
LINES = 10_000
KEPT = 300
SPACES = [chr(c) for c in (*range(9, 14), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E, *range(0x2000, 0x2010),
                           0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)]
PIECES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "''s", "don't", "I'll've", " 1999",
          "\u0661\u0662", "\u00b2", "\u2167", "\u4e00\u4e8c", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
          "\U0001f1e9\U0001f1ea", "e\u0301", "\u0915\u094d\u0937", "\ufe0f", "...", "--", "\x00", "\x7f", "\u00ad",
          END, " " + END, END + END, "<|endoftext", "<mask>", "<mask>ed", "\U0010fffd", "a" * 50, "  ", "   ", "\r\n", "\n\n"]


def build(folder):
    """Compiles the C++ side."""
    tests = pathlib.Path(__file__).resolve().parent
    tool = folder / "tokenize_lines"
    subprocess.run(["c++", "-std=c++20", "-O1", f"-I{tests.parents[1] / 'include'}", str(tests / "tokenize_lines.cpp"),
                    "-o", str(tool), "-lpcre2-8"], check=True)
    return tool


def known_points(tool):
    """Code points that both sides know, and how many only one of them knows."""
    ours = set(json.loads(subprocess.run([tool, "--unassigned"], check=True, capture_output=True).stdout))
    isolate = pre_tokenizers.Split(Regex(r"\p{Cn}"), "isolated")
    points, one_sided = [], 0
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        theirs = len(isolate.pre_tokenize_str("a" + chr(c) + "b")) > 1
        if theirs or c in ours:
            one_sided += theirs != (c in ours)
        else:
            points.append(c)
    return points, one_sided


def train(points):
    corpus = []
    for c in points:
        name = unicodedata.name(chr(c), "")
        if name and not name.startswith(("CJK UNIFIED", "HANGUL SYLLABLE", "EGYPTIAN", "TANGUT")):
            corpus.append(f"{name.lower()} isn't {name.title()} {chr(c)}  {c}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([END])
    tokenizer.add_tokens([AddedToken("<mask>", normalized=True)])
    return tokenizer


def make_lines(points):
    rng = random.Random(1)
    points = [c for c in points if not 0xE000 <= c < 0xF900 and c < 0xF0000] + [0xE000, 0xF8FF, 0xF0000, 0x10FFFD]
    rng.shuffle(points)
    words = [w.lower() for c in points[:2000] for w in unicodedata.name(chr(c), "none").split()]
    share = -(-len(points) // LINES)
    lines = []
    for i in range(LINES):
        parts = [chr(c) for c in points[i * share:(i + 1) * share]]
        parts += [rng.choice(PIECES) for _ in range(rng.randint(1, 6))]
        parts += [rng.choice(SPACES) * rng.randint(1, 3) for _ in range(rng.randint(1, 5))]
        parts += [rng.choice(["", " "]) + rng.choice(words) for _ in range(rng.randint(2, 8))]
        parts += [str(rng.randrange(10 ** rng.randint(1, 8))) for _ in range(rng.randint(0, 2))]
        rng.shuffle(parts)
        lines.append("".join(parts))
    lines[0] = ""
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--tokenizer", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tool = build(folder)
        points, one_sided = known_points(tool)
        tokenizer = Tokenizer.from_file(options.tokenizer) if options.tokenizer else train(points)
        lines = make_lines(points)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "lines.json").write_text(json.dumps(lines))
        run = subprocess.run([tool, folder / "tokenizer.json", folder / "lines.json"], check=True, capture_output=True)
        ours = json.loads(run.stdout)
        if options.write:
            options.write.mkdir(parents=True, exist_ok=True)
            tokenizer.save(str(options.write / "tokenizer.json"), pretty=False)

    kept, wrong, tokens = [], 0, 0
    for line, got in zip(lines, ours, strict=True):
        expected = tokenizer.encode(line).ids
        decoded = tokenizer.decode(expected, skip_special_tokens=False)
        tokens += len(expected)
        covered = [b for span in got["offsets"] for b in range(*span)] == list(range(len(line.encode())))
        if got["ids"] != expected or got["decoded"] != decoded or not covered:
            wrong += 1
            if wrong <= 5:
                print(f"disagree on {line!r}:\n  expected {expected}\n  got      {got['ids']}")
        if len(kept) < KEPT:
            kept.append({"text": line, "ids": expected})
    print(f"{len(lines)} lines, {tokens} tokens, {len(points)} code points known to both sides, {one_sided} known to "
          f"one side only and left out; {wrong} lines disagree")
    if options.write:
        text = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in kept)
        (options.write / "lines.json").write_text(f"[\n{text}\n]\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
