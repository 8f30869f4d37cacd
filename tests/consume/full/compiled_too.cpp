#include <circuit/leap.hpp>
#include <circuit/model/load/llama.hpp>

bool refuses_a_missing_model() {
  const auto refused = [](auto load) {
    try {
      load();
    } catch (const circuit::FileError&) {
      return true;
    }
    return false;
  };
  return refused([] { (void)circuit::load_model<circuit::Gpt2>("nowhere"); }) &&
         refused([] { (void)circuit::load_model<circuit::Llama>("nowhere"); });
}
