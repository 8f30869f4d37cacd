#include <circuit/core/atomic_file.hpp>
#include <circuit/core/id.hpp>
#include <circuit/graph/circuit.hpp>
#include <circuit/version.hpp>
#include <iostream>
#include <sstream>

int main() {
  std::ostringstream text;
  text << circuit::version << ' ' << circuit::Layer{3};
  std::cout << text.str() << '\n';
  try {
    circuit::write_file("/no/such/folder/file", "x");
  } catch (const circuit::FileError& error) {
    std::cout << error.what() << '\n';
    return text.str().ends_with("layer 3") ? 0 : 1;
  }
  return 1;
}
