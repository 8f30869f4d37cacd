// Links circuit::compiled, in two files: what opens files is declared in both and compiled in neither.
#include <circuit/leap.hpp>
#include <iostream>

#include "refused.hpp"

#ifdef CIRCUIT_DEFINE
#error "circuit::compiled leaves the loaders declared"
#endif

bool refuses_a_missing_model();

int main() {
  const bool dictionaries = refused([] { (void)circuit::load_dictionaries("nowhere", "nowhere"); });
  const bool tokenizer = refused([] { (void)circuit::read_tokenizer_json("nowhere.json"); });
  const bool model = refuses_a_missing_model();
  std::cout << "refused: " << dictionaries << tokenizer << model << '\n';
  return dictionaries && tokenizer && model ? 0 : 1;
}
