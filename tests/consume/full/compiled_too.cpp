#include <circuit/leap.hpp>
#include <circuit/model/load/llama.hpp>

#include "refused.hpp"

bool refuses_a_missing_model() {
  return refused([] { (void)circuit::load_model<circuit::Gpt2>("nowhere"); }) &&
         refused([] { (void)circuit::load_model<circuit::Llama>("nowhere"); });
}
