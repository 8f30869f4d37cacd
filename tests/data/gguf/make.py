"""Writes blocks.gguf: random bytes of every type that can be widened, and beside each tensor NAME its values in float32,
NAME.expected, as the Python package gguf widens it; and metadata of every type.

pip install gguf numpy; python make.py
"""

import pathlib

import gguf
import numpy as np

ROWS, VALUES = 3, 512
# Where the halves lie in a block, counted in bytes.
HALVES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def finite_halves(random, count):
    """Any finite half: normal, subnormal and zero, of both signs."""
    return np.concatenate([
        random.integers(0, 0x7C00, count - count // 4), random.integers(0, 0x0400, count // 4),
    ])[random.permutation(count)].astype(np.uint16) | (random.integers(0, 2, count).astype(np.uint16) << 15)


def finite_floats(random, count, bits):
    exponent = random.integers(0, 255, count).astype(np.uint32) << 23
    rest = random.integers(0, 2**32, count, dtype=np.uint32) & np.uint32(0x807FFFFF)
    return ((exponent | rest) >> np.uint32(32 - bits)).astype(f"<u{bits // 8}")


def stored(random, kind):
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    if kind.name in ("F32", "F16", "BF16"):
        count = ROWS * VALUES
        bits = finite_halves(random, count) if kind.name == "F16" else finite_floats(random, count, size * 8)
        return bits.view(np.uint8).reshape(ROWS, VALUES * size)
    blocks = random.integers(0, 256, (ROWS * VALUES // per_block, size), dtype=np.uint8)
    for at in HALVES[kind.name]:
        blocks[:, at:at + 2] = finite_halves(random, len(blocks)).reshape(-1, 1).view(np.uint8)
    return blocks.reshape(ROWS, VALUES // per_block * size)


def main():
    random = np.random.default_rng(20)
    writer = gguf.GGUFWriter(str(pathlib.Path(__file__).parent / "blocks.gguf"), "none")
    for name, add in {
        "uint8": writer.add_uint8, "int8": writer.add_int8, "uint16": writer.add_uint16, "int16": writer.add_int16,
        "uint32": writer.add_uint32, "int32": writer.add_int32, "uint64": writer.add_uint64, "int64": writer.add_int64,
    }.items():
        add("test." + name, np.iinfo(name).max)
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_array("test.texts", ["a", "", "\u00e9\u4e2d"])
    writer.add_array("test.numbers", [-1, 0, 2**31 - 1])
    for name in ["F32", "F16", "BF16", *HALVES]:
        kind = gguf.GGMLQuantizationType[name]
        raw = stored(random, kind)
        expected = gguf.quants.dequantize(raw, kind).astype(np.float32)
        assert expected.shape == (ROWS, VALUES) and np.isfinite(expected).all(), name
        writer.add_tensor(name, raw, raw_dtype=kind)
        writer.add_tensor(name + ".expected", expected)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
