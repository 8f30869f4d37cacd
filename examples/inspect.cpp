// Prints what is in a file of weights or the folder of a model or a dictionary: tensors, config or metadata, tokenizer,
// which loader of this library fits, and what is wrong with it. Without arguments it looks at files of this repository.
#include <CLI/CLI.hpp>
#include <circuit/dictionary/load.hpp>
#include <circuit/model/open.hpp>

#include "inspect/listing.hpp"

namespace inspect {

using namespace circuit;
namespace fs = std::filesystem;

/// Runs one part of the inspection; an error is what is wrong with the file, and the other parts go on.
/// return  whether nothing was wrong
template <class Part>
bool attempt(const char* what, Part&& part, const char* verdict = "wrong") {
  try {
    part();
    return true;
  } catch (const Error& error) {
    auto said = error.details();
    said.file = said.file.filename();
    std::cout << what << ": " << verdict << ": " << detail::error_text(said) << '\n';
    return false;
  }
}

bool starts_with(const fs::path& file, std::string_view magic) {
  const auto mapping = Mapping::open(file);
  const std::string_view text{reinterpret_cast<const char*>(mapping->bytes().data()), mapping->bytes().size()};
  return text.starts_with(magic);
}

void print_tokenizer(const Tokenizer& tokenizer) {
  std::cout << "tokenizer: " << tokenizer.model_tokens().size() << " tokens";
  if (const auto bos = tokenizer.bos_id()) {
    std::cout << ", BOS " << one_line(tokenizer.token_text(*bos)) << " (" << *bos << ") "
              << (tokenizer.default_bos() == Bos::prepend ? "comes first" : "is not put first by default");
  }
  std::cout << '\n';
}

/// The tensors of a file in whatever format, and what stands beside them.
void print_file(const fs::path& file) {
  if (starts_with(file, "GGUF")) {
    const auto gguf = open_gguf(file);
    print_values(gguf.metadata());
    print_tensors(gguf);
  } else if (starts_with(file, "PK") || file.extension() == ".bin" || file.extension() == ".pt") {
    const auto torch = read_torch(file);
    print_values("values", torch.values);
    print_tensors(torch.tensors);
  } else {
    const auto tensors = open_safetensors(file);
    print_values("metadata", tensors.metadata());
    print_tensors(tensors);
  }
}

bool fits_model(const fs::path& path) {
  const auto describe = []<class A>(const HookedTransformer<A>& model) {
    const auto& c = model.config();
    return "A::name \"" + std::string{A::name} + "\", " + std::to_string(c.n_layers) + " layers, " +
           std::to_string(c.n_heads) + " heads, width " + std::to_string(c.d_model) + ", vocabulary " +
           std::to_string(c.d_vocab);
  };
  const auto open = [&] {
    const auto text = open_model(path, describe);
    std::cout << "loader: open_model gives a HookedTransformer<A>: " << text << '\n';
  };
  return attempt("loader", open, "none fits");
}

bool fits_dictionary(const fs::path& path) {
  const auto load = [&] {
    const auto loaded = load_dictionary(path);
    std::cout << "loader: load_dictionary gives " << loaded.dictionary.d_sae() << " features that read "
              << loaded.hooks.in << " and write " << loaded.hooks.out << '\n';
  };
  return attempt("loader", load, "none fits");
}

bool inspect_folder(const fs::path& folder) {
  if (fs::exists(folder / "cfg.json")) {
    return attempt("config", [&] { print_values("config", read_json(folder / "cfg.json")); }) &
           attempt("tensors", [&] { print_tensors(open_safetensors(folder / "sae_weights.safetensors")); }) &
           fits_dictionary(folder);
  }
  return attempt("config", [&] { print_values("config", read_json(folder / "config.json")); }) &
         attempt("tensors", [&] { print_tensors(open_weights(folder)); }) &
         attempt("tokenizer", [&] { print_tokenizer(load_tokenizer(folder)); }) & fits_model(folder);
}

bool inspect_file(const fs::path& file) {
  if (!attempt("tensors", [&] { print_file(file); })) return false;
  if (starts_with(file, "GGUF")) {
    return attempt("tokenizer", [&] { print_tokenizer(load_tokenizer(file)); }) & fits_model(file);
  }
  if (fs::exists(file.parent_path() / "config.json")) {
    std::cout << "loader: these are a model's weights; open_model takes the folder they lie in\n";
    return true;
  }
  return fits_dictionary(file);
}

/// return  whether nothing was wrong
bool inspect(const fs::path& path) {
  std::cout << path.parent_path().filename().string() << '/' << path.filename().string() << '\n';
  bool fine = false;
  attempt("file", [&] { fine = fs::is_directory(path) ? inspect_folder(path) : inspect_file(path); });
  std::cout << '\n';
  return fine;
}

}  // namespace inspect

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> paths;
  CLI::App app{"Says what is in files of weights (safetensors, GGUF, .pt, .bin) and folders of models or dictionaries"};
  app.add_option("paths", paths, "files and folders");
  CLI11_PARSE(app, argc, argv);
  if (!paths.empty()) return std::count_if(paths.begin(), paths.end(), std::not_fn(inspect::inspect)) == 0 ? 0 : 1;

  const std::filesystem::path examples{CIRCUIT_EXAMPLE_DATA};
  const std::filesystem::path tests{CIRCUIT_TEST_DATA};
  for (const auto& path :
       {examples / "model", examples / "transcoders/blocks.0.ln2.hook_normalized",
        tests / "gguf_models/llama_q8_0.gguf", tests / "golden/dictionaries/attn.0.pt",
        tests / "state_dict/pytorch_model.bin", tests / "state_dict/legacy.bin", tests / "gguf/blocks.gguf"}) {
    inspect::inspect(path);
  }
}
