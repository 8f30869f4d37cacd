#!/usr/bin/env python3
"""Checks that the C++ tokenizer agrees with the Python package `tokenizers` on 10,000 lines of mixed Unicode.

For each family a small tokenizer with exactly the normalizer, pre-tokenizer, decoder and model settings of the family's
published tokenizer.json is trained here on the names of the Unicode characters. Every assigned code point occurs in some
line, in the company of contractions, digits of many scripts, combining marks, all kinds of white space and special
tokens. Code points that either side's Unicode tables do not know, or that the Python packages normalise differently
from each other, are left out and counted. Vocabularies in GGUF files are checked too: `--gguf` builds a Python tokenizer
from a file's metadata, and models of the package `sentencepiece`, also stored as GGUF, are compared with that package.
Needs: pip install tokenizers sentencepiece protobuf gguf, a C++20 compiler, PCRE2 and nlohmann json.

  compare_tokenizers.py                    compares every family; exits with 1 on a disagreement
  compare_tokenizers.py --family NAME      compares one
  compare_tokenizers.py --tokenizer FILE   compares on this tokenizer.json instead of new ones
  compare_tokenizers.py --gguf FILE        compares on the byte-level tokenizer in this GGUF file
  compare_tokenizers.py --write FOLDER     also stores the tokenizers and a few hundred lines for the C++ tests
"""
import argparse
import base64
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
LINES = 10_000
KEPT = 240
SPACES = [chr(c) for c in (*range(9, 14), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E, *range(0x2000, 0x2010),
                           0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)]
PIECES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "''s", "don't", "I'll've", " 1999",
          "\u0661\u0662", "\u00b2", "\u2167", "\u4e00\u4e8c", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
          "\U0001f1e9\U0001f1ea", "e\u0301", "\u0915\u094d\u0937", "\ufe0f", "...", "--", "\x00", "\x7f", "\u00ad",
          "'\u017f", "'RE", "x'Ll", "\r\n\r\n", " \n", "\n ", "!\n", "12345", "\u0661\u0662\u0663\u0664", "\u00bd\u00be",
          "a\u0323\u0302", "a\u0302\u0323", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0958", "\u2126", "\u212b", "\ufb1d",
          "\u0340", "\u037e", "\u0b47\u0b3e", "q\u0307\u0323", "\u0301", "\u2581", "\u2581\u2581the", "<0x0A>", "<s>", "</s>",
          "<unk>", "<bos>", "<|begin_of_text|>", "<|im_start|>", "\t\t", "        ", "   x",
          END, " " + END, END + END, "<|endoftext", "<mask>", "<mask>ed", "\U0010fffd", "a" * 50, "  ", "   ", "\r\n", "\n\n"]


def build(folder):
    """Compiles the C++ side."""
    tests = pathlib.Path(__file__).resolve().parent
    tool = folder / "tokenize_lines"
    subprocess.run(["c++", "-std=c++20", "-O1", f"-I{tests.parents[1] / 'include'}", str(tests / "tokenize_lines.cpp"),
                    "-o", str(tool), "-lpcre2-8"], check=True)
    return tool


def form_differs(c):
    """Whether `tokenizers` normalises by older or newer tables than Python."""
    forms = (("NFC", normalizers.NFC()), ("NFKC", normalizers.NFKC()))
    return any(form.normalize_str(text) != unicodedata.normalize(name, text) for name, form in forms
               for text in (chr(c), f"a\u0315{chr(c)}", f"a{chr(c)}\u0334"))


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
        elif form_differs(c):
            one_sided += 1
        else:
            points.append(c)
    return points, one_sided


def corpus_of(points):
    corpus = []
    for c in points:
        name = unicodedata.name(chr(c), "")
        if name and not name.startswith(("CJK UNIFIED", "HANGUL SYLLABLE", "EGYPTIAN", "TANGUT")):
            corpus.append(f"{name.lower()} isn't {name.title()} {chr(c)}  {c}")
    return corpus


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
BYTE_LEVEL = {"add_prefix_space": False}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(corpus, specials, words, normalizer=None, size=1500, **settings):
    tokenizer = Tokenizer(models.BPE(**settings))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(specials)
    return tokenizer


def gpt2(corpus):
    tokenizer = byte_level(corpus, [END], pre_tokenizers.ByteLevel(**BYTE_LEVEL))
    tokenizer.add_tokens([AddedToken("<mask>", normalized=True)])
    return tokenizer


def regex_words(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"),
                                    pre_tokenizers.ByteLevel(use_regex=False, **BYTE_LEVEL)])


def llama3(corpus):
    bos = "<|begin_of_text|>"
    tokenizer = byte_level(corpus, [bos, "<|end_of_text|>"], regex_words(LLAMA3), ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                                      special_tokens=[(bos, tokenizer.token_to_id(bos))])])
    # Merges that no longer lead to every token, so that ignore_merges decides.
    root = json.loads(tokenizer.to_str())
    root["model"]["merges"] = root["model"]["merges"][::2] + root["model"]["merges"][1::2]
    return Tokenizer.from_str(json.dumps(root))


def qwen2(corpus):
    return byte_level(corpus, [END, "<|im_start|>", "<|im_end|>"], regex_words(LLAMA3.replace("{1,3}", "")),
                      normalizers.NFC())


def smollm2(corpus):
    words = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                     pre_tokenizers.ByteLevel(**BYTE_LEVEL)])
    tokenizer = byte_level(corpus, [END, "<|im_start|>", "<|im_end|>"], words)
    # The published vocabulary lacks some control characters, which are then left out of the tokens.
    root = json.loads(tokenizer.to_str())
    gone = ("\u0104", "\u0106", "\u00f1")
    model = root["model"]
    model["merges"] = [merge for merge in model["merges"] if not any(spelt in "".join(merge) for spelt in gone)]
    model["vocab"] = {f"<reserved {i}>" if any(spelt in text for spelt in gone) else text: i
                      for text, i in model["vocab"].items()}
    return Tokenizer.from_str(json.dumps(root))


def gpt_neox(corpus):
    tokenizer = byte_level(corpus, [END, "<|padding|>"], pre_tokenizers.ByteLevel(**BYTE_LEVEL), normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return tokenizer


def with_byte_tokens(corpus, specials, training_words, settings, size=1500):
    """A BPE over characters that falls back on bytes; `settings` replaces the parts of the file."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = training_words
    tokenizer.train_from_iterator(corpus[:6000], trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials + BYTES, limit_alphabet=300, max_token_length=16,
        show_progress=False))
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = [token for token in root["added_tokens"] if token["content"] not in BYTES]
    root["model"]["byte_fallback"] = True
    bos = specials[1] if specials[1] == "<s>" else specials[2]
    root["post_processor"] = {"type": "TemplateProcessing", "special_tokens": {
        bos: {"id": bos, "ids": [root["model"]["vocab"][bos]], "tokens": [bos]}},
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]}
    root.update(settings)
    return Tokenizer.from_str(json.dumps(root))


TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
FROM_MARK = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
             {"type": "Fuse"}]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def llama2(corpus):
    tokenizer = with_byte_tokens(corpus, ["<unk>", "<s>", "</s>"], pre_tokenizers.Metaspace(), {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, TO_MARK]},
        "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": FROM_MARK + [STRIP]}})
    root = json.loads(tokenizer.to_str())
    root["added_tokens"][2]["normalized"] = True  # as in some published files: it is found after a space only
    return Tokenizer.from_str(json.dumps(root))


def mistral(corpus):
    """Llama 2's kind as newer files write it."""
    return with_byte_tokens(corpus, ["<unk>", "<s>", "</s>"], pre_tokenizers.Metaspace(), {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
        "decoder": {"type": "Sequence", "decoders": FROM_MARK + [STRIP]}})


def gemma(corpus):
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = with_byte_tokens(corpus, specials, pre_tokenizers.Split("\u2581\u2581x", "isolated"), {
        "normalizer": TO_MARK,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "decoder": {"type": "Sequence", "decoders": FROM_MARK}})
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "\u2581\u2581", "\u2581\u2581\u2581")])
    return tokenizer


def unigram(corpus, parts, fallback=False):
    """A unigram model under NFKC as the package `sentencepiece` compiles it; `parts` replaces those of the file."""
    pieces = SentencePiece("unigram", corpus)
    vocab = [[text, score] for text, score, kind in pieces.pieces() if kind in (1, 2, 3)]
    if fallback:
        vocab += [[byte, 0.0] for byte in BYTES]
    root = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "added_tokens": [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])],
        "decoder": METASPACE, "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": fallback}}
    charsmap = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(pieces.charsmap()).decode()}
    parts = json.loads(json.dumps(parts).replace('"CHARSMAP"', json.dumps(charsmap)))
    return Tokenizer.from_str(json.dumps(root | parts))


METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
JOIN = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}


def t5(corpus):
    return unigram(corpus, {"pre_tokenizer": METASPACE, "normalizer": {"type": "Sequence", "normalizers": [
        "CHARSMAP", {"type": "Strip", "strip_left": False, "strip_right": True}, JOIN | {"content": "\u2581"}]}})


def xlm_roberta(corpus):
    return unigram(corpus, {"normalizer": {"type": "Sequence", "normalizers": ["CHARSMAP", JOIN]}, "pre_tokenizer": {
        "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}})


def nmt_nfkc(corpus):
    """As `SentencePieceUnigramTokenizer` trains them."""
    return unigram(corpus, {"pre_tokenizer": METASPACE, "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Nmt"}, {"type": "NFKC"}, JOIN]}})


def nfkc_words(corpus):
    return unigram(corpus, {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}})


def nfkc(corpus):
    """GPT-2's kind on text in form KC."""
    return byte_level(corpus, [END], pre_tokenizers.ByteLevel(**BYTE_LEVEL), normalizers.NFKC())


def nmt(corpus):
    return byte_level(corpus, [END], pre_tokenizers.ByteLevel(**BYTE_LEVEL), normalizers.Nmt())


def unigram_bytes(corpus):
    """Without rules, falling back on bytes."""
    return unigram(corpus, {"pre_tokenizer": METASPACE, "normalizer": None, "decoder": {
        "type": "Sequence", "decoders": FROM_MARK + [STRIP]}}, fallback=True)


FAMILIES = {family.__name__: family for family in (t5, xlm_roberta, unigram_bytes, nmt_nfkc, nfkc_words,
                                                   nfkc, nmt, gpt2, llama3, qwen2, smollm2, gpt_neox,
                                                   llama2, mistral, gemma)}


def make_lines(points):
    rng = random.Random(1)
    points = [c for c in points if not 0xE000 <= c < 0xF900 and c < 0xF0000] + [0xE000, 0xF8FF, 0xF0000, 0x10FFFD]
    rng.shuffle(points)
    words = [w.lower() for c in points[:2000] for w in unicodedata.name(chr(c), "none").split()]
    few = 3 * KEPT  # the lines that are kept are short
    share = -(-(len(points) - few) // (LINES - KEPT))
    lines = []
    for i in range(LINES):
        begin, end = (3 * i, 3 * i + 3) if i < KEPT else (few + (i - KEPT) * share, few + (i - KEPT + 1) * share)
        parts = [chr(c) for c in points[begin:end]]
        parts += [rng.choice(PIECES) for _ in range(rng.randint(1, 6))]
        parts += [rng.choice(SPACES) * rng.randint(1, 3) for _ in range(rng.randint(1, 5))]
        parts += [rng.choice(["", " "]) + rng.choice(words) for _ in range(rng.randint(2, 8))]
        parts += [str(rng.randrange(10 ** rng.randint(1, 8))) for _ in range(rng.randint(0, 2))]
        rng.shuffle(parts)
        lines.append("".join(parts))
    lines[0] = ""
    return lines


def from_gguf(path):
    """The `tokenizers` object that a GGUF file's metadata describe."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    words = {"smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                pre_tokenizers.ByteLevel(**BYTE_LEVEL)]),
             "gpt-2": pre_tokenizers.ByteLevel(**BYTE_LEVEL), "llama-bpe": regex_words(LLAMA3),
             "qwen2": regex_words(LLAMA3.replace("{1,3}", ""))}[get("pre")]
    tokens, types = get("tokens"), get("token_type")
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, ignore_merges=get("pre") == "llama-bpe",
                                     merges=[tuple(merge.split(" ")) for merge in get("merges")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoders.ByteLevel()
    if get("pre") == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    tokenizer.add_tokens([AddedToken(t, normalized=True) for t, kind in zip(tokens, types) if kind == 4])
    return tokenizer


class SentencePiece:
    """A small model of the package `sentencepiece`, which answers as `tokenizers` does."""
    KINDS = {  # as Llama 2's and Gemma's
        "sentencepiece": {"add_dummy_prefix": True},
        "sentencepiece_symbols": {"add_dummy_prefix": False, "user_defined_symbols": [
            "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<mask>", "<|im_start|>"]},
        "unigram": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, "byte_fallback": False},
        "unigram_lower": {"normalization_rule_name": "nfkc_cf", "remove_extra_whitespaces": True, "vocab_size": 1000},
        "unigram_plain": {"add_dummy_prefix": False},
        "unigram_symbols": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, "user_defined_symbols": [
            "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<mask>", "<|im_start|>", "\u212b", "...", "the", "e\u0301"]}}

    def __init__(self, kind, corpus):
        import io

        import sentencepiece
        model = io.BytesIO()
        self.unigram = kind.startswith("unigram")
        settings = {"model_type": "unigram" if self.unigram else "bpe", "vocab_size": 1200, "byte_fallback": True,
                    "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True,
                    "allow_whitespace_only_pieces": True, "minloglevel": 2, "unk_surface": "<unk>",
                    "character_coverage": 0.98}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus[:6000]), model_writer=model,
                                                 **(settings | self.KINDS[kind]))
        self.prefix = self.KINDS[kind].get("add_dummy_prefix", True)
        self.symbols = self.KINDS[kind].get("user_defined_symbols", [])
        self.model = model.getvalue()
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def pieces(self):
        """[text, score, type as in GGUF] by id."""
        p = self.processor
        kind = lambda i: (2 if p.IsUnknown(i) else 3 if p.IsControl(i) else 5 if p.IsUnused(i) else 6 if p.IsByte(i)
                          else 4 if p.IdToPiece(i) in self.symbols else 1)
        return [[p.IdToPiece(i), p.GetScore(i), kind(i)] for i in range(p.GetPieceSize())]

    def charsmap(self):
        """The compiled rules."""
        from sentencepiece import sentencepiece_model_pb2
        return sentencepiece_model_pb2.ModelProto.FromString(self.model).normalizer_spec.precompiled_charsmap

    def save(self, path):
        """As GGUF, and as a model of its own beside that; a unigram model as that alone."""
        path.with_suffix(".model").write_bytes(self.model)
        if self.unigram:
            return
        import gguf
        writer = gguf.GGUFWriter(path, "llama")
        tokens, scores, types = zip(*self.pieces())
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(self.processor.bos_id())
        writer.add_add_space_prefix(self.prefix)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()

    def store(self, folder):
        (folder / "tokenizer.model").write_bytes(self.model)
        text = ",\n".join(json.dumps(piece, separators=(",", ":")) for piece in self.pieces())
        (folder / "pieces.json").write_text(f"[\n{text}\n]\n")

    def encode(self, text):
        return self.processor.encode(text)

    def decode(self, ids):
        return self.processor.decode(ids)


class Plain:
    """A tokenizer of the package `tokenizers`, without what its post-processor adds."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def save(self, path):
        self.tokenizer.save(str(path))

    def store(self, folder):
        self.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def disagreements(tool, folder, tokenizer, file, lines):
    """Prints up to five; returns how many lines disagree, and the ids that the Python package gives."""
    (folder / "lines.json").write_text(json.dumps(lines))
    run = subprocess.run([tool, file, folder / "lines.json"], check=True, stdout=subprocess.PIPE)
    ids, wrong = [], 0
    for line, got in zip(lines, json.loads(run.stdout), strict=True):
        expected = tokenizer.encode(line)
        decoded = tokenizer.decode(expected)
        ids.append(expected)
        end = max([0, *(span[1] for span in got["offsets"])])
        covered = [b for span in got["offsets"] for b in range(*span)] == list(range(end))
        rest = line.encode()[end:].decode()  # bytes without a token at the end
        if got["ids"] != expected or got["decoded"] != decoded or not covered or tokenizer.encode(rest):
            wrong += 1
            if wrong <= 5:
                print(f"disagree on {line!r}:\n  expected {expected} {decoded!r}\n  got      {got}")
    return wrong, ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--family", choices=[*FAMILIES, *SentencePiece.KINDS])
    parser.add_argument("--tokenizer", metavar="FILE")
    parser.add_argument("--gguf", metavar="FILE")
    options = parser.parse_args()
    given = options.tokenizer or options.gguf
    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tool = build(folder)
        points, one_sided = known_points(tool)
        print(f"{len(points)} code points known to both sides; {one_sided} left out, which one side does not know")
        all_lines, corpus = make_lines(points), corpus_of(points)
        if options.write:
            texts = ",\n".join(json.dumps(line) for line in all_lines[:KEPT])
            (options.write / "lines.json").write_text(f"[\n{texts}\n]\n")
        for family in [given or options.family] if given or options.family else [*FAMILIES, *SentencePiece.KINDS]:
            lines, file = all_lines, given or folder / "tokenizer"
            if family in SentencePiece.KINDS:  # that package does not look for control tokens in text
                lines = [line for line in lines if not re.search("<s>|</s>|<unk>", line)]
                tokenizer = SentencePiece(family, corpus)
                if family == "unigram_lower":  # it decodes marks that begin a text to nothing
                    lines = [line for line in lines if not re.match("\\s*\u2581", line)]
            elif family == "unigram_bytes":  # there a byte token is found by its spelling too
                lines = [line for line in lines if "<0x" not in line]
                tokenizer = Plain(unigram_bytes(corpus))
            elif options.gguf:
                tokenizer = Plain(from_gguf(options.gguf))
            else:
                tokenizer = Plain(Tokenizer.from_file(given) if given else FAMILIES[family](corpus))
            if not given:
                tokenizer.save(file)
            unigram = family in SentencePiece.KINDS and tokenizer.unigram
            wrong, ids = disagreements(tool, folder, tokenizer, file.with_suffix(".model") if unigram else file, lines)
            if family in SentencePiece.KINDS and not unigram:
                wrong += disagreements(tool, folder, tokenizer, file.with_suffix(".model"), lines)[0]
            total += wrong
            print(f"{family}: {len(lines)} lines, {sum(map(len, ids))} tokens; {wrong} lines disagree")
            if options.write:
                (options.write / family).mkdir(parents=True, exist_ok=True)
                tokenizer.store(options.write / family)
                ids = [tokenizer.encode(line) for line in all_lines[:KEPT]]
                text = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in ids)
                (options.write / family / "ids.json").write_text(f"[\n{text}\n]\n")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
