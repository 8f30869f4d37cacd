"""Writes docs/dictionaries.md from what the built test program says: python table.py build/tests/circuit_dictionary_test"""

import subprocess
import sys
from pathlib import Path

HEAD = """# Dictionaries compared with the libraries that write them

Every row is a small dictionary with random weights, written by the library of its format
([make.py](../tests/data/dictionaries/make.py): sae_lens 6.54, eai-sparsify 1.3, dictionary_learning 0.1, circuit-tracer 0.5), read
by `dictionary::load` (`load_set` for cross-layer transcoders) and given the same inputs. The numbers are the largest differences, in
float32, of activations, of the output from the activations, of the error term when encoded block by block, and of the loss (about 4
nats) of a tiny GPT-2 in which the dictionary's output stands in for what it describes: for a cross-layer transcoder, for the outputs
of all MLPs. The bar is 1e-5; `tests/dictionary/parity_test.cpp` holds it without Python. Published layouts of Gemma Scope and Llama
Scope are read by sae_lens' own converters, Gemma Scope 2's cross-layer transcoders by circuit-tracer's. circuit-tracer's loader
knows no TopK, so that row is its class alone. [table.py](../tests/data/dictionaries/table.py) writes this page.

| Kind | Format | Compared with | encode | decode | error term | loss spliced in |
|---|---|---|---|---|---|---|
"""

program = Path(sys.argv[1]).resolve()
lines = subprocess.run([program, "[.table]"], check=True, capture_output=True, text=True).stdout.splitlines()
rows = [line for line in lines if line.startswith("| ")]
page = Path(__file__).parents[3] / "docs" / "dictionaries.md"
page.write_text(HEAD + "\n".join(rows) + "\n")
