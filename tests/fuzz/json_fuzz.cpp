#include <string_view>

#include "circuit/io/json.hpp"
#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return read_or_refuse([&] { (void)circuit::parse_json({reinterpret_cast<const char*>(data), size}).dump(); });
}
