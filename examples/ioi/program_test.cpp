// Runs the built program on a tiny model and checks what it writes: exit codes, figures, and that an edges file's
// attributions and bias rows add up. It reads files only, so it needs no LibTorch.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/graph/node.hpp"

namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("circuit_ioi_" + std::to_string(std::random_device{}()));
  Folder() { fs::create_directories(path / "dictionaries"); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path); }
};

std::string read(const fs::path& file) {
  std::ifstream stream{file, std::ios::binary};
  REQUIRE(stream);
  return {std::istreambuf_iterator<char>{stream}, {}};
}

struct Ended {
  int code;
  std::string out;
  std::string err;
};

/// The program on the golden model, whose dictionaries lie there in two formats: one of them is copied.
Ended run(const Folder& folder, const std::string& flags) {
  const auto golden = fs::path{CIRCUIT_TEST_DATA} / "golden";
  for (const auto& entry : fs::directory_iterator{golden / "dictionaries"}) {
    if (entry.path().extension() != ".safetensors") continue;
    fs::copy_file(entry.path(), folder.path / "dictionaries" / entry.path().filename(),
                  fs::copy_options::skip_existing);
  }
  const auto in = [&](const fs::path& file) { return '"' + file.string() + '"'; };
  const auto command = "OMP_NUM_THREADS=1 " + in(IOI_PROGRAM) + " --model " + in(golden / "model") + " --attn-saes " +
                       in(folder.path / "dictionaries") + " --transcoders " + in(folder.path / "dictionaries") +
                       " --token-ids --batch-size 4 --out " + in(folder.path / "out") + ' ' + flags + " --prompts " +
                       in(golden / "prompts.json") + " > " + in(folder.path / "stdout") + " 2> " +
                       in(folder.path / "stderr");
  const int status = std::system(command.c_str());
  return {status >= 256 ? status / 256 : status, read(folder.path / "stdout"), read(folder.path / "stderr")};
}

using Row = std::map<std::string, std::string>;

std::vector<Row> rows_of(const fs::path& file) {
  std::istringstream text{read(file)};
  std::string line;
  const auto cells = [](const std::string& whole) {
    std::vector<std::string> parts{""};
    for (const char c : whole) c == ',' ? parts.push_back("") : parts.back().push_back(c);
    return parts;
  };
  std::getline(text, line);
  const auto names = cells(line);
  std::vector<Row> rows;
  while (std::getline(text, line)) {
    const auto values = cells(line);
    if (values.size() != names.size()) FAIL("a row of another length: " << line);
    auto& row = rows.emplace_back();
    for (std::size_t i = 0; i < names.size(); ++i) row[names[i]] = values[i];
  }
  return rows;
}

double number(const Row& row, const std::string& column) { return std::stod(row.at(column)); }

double metric_sum(const std::vector<Row>& rows, const std::string& prompt) {
  double sum = 0;
  for (const auto& row : rows) {
    if (row.at("prompt") == prompt && row.at("down_kind") == "metric") sum += number(row, "em_attrib");
  }
  return sum;
}

nlohmann::json figures(const Folder& folder) { return nlohmann::json::parse(read(folder.path / "figures.json")); }
std::string json_flag(const Folder& folder) { return " --json \"" + (folder.path / "figures.json").string() + '"'; }
std::string edges_flag(const Folder& folder) { return " --edges \"" + (folder.path / "edges.csv").string() + '"'; }

}  // namespace

TEST_CASE("with every edge, attributions into the metric and its bias row add to the clean logit difference") {
  const Folder folder;
  const auto ended =
      run(folder, "--all-edges --contrast off --dtype float64 --lens" + json_flag(folder) + edges_flag(folder));
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  const auto json = figures(folder);
  const auto rows = rows_of(folder.path / "edges.csv");
  const double clean = json.at("logit_difference").at("clean");
  REQUIRE(metric_sum(rows, "mean") == Approx(clean).epsilon(1e-9));
  std::set<std::string> kinds;
  std::size_t edges = 0;
  for (const auto& row : rows) {
    kinds.insert(row.at("up_kind"));
    edges += row.at("up_kind") != "bias" ? 1U : 0U;
  }
  REQUIRE(kinds == std::set<std::string>{"embed", "attn", "attn_error", "mlp", "mlp_error", "bias"});
  REQUIRE(json.at("edges").at("edges") == edges);
  const auto& direct = json.at("lens").at("direct_logit_attribution");
  REQUIRE(direct.at("component_sum").get<double>() == Approx(clean).epsilon(1e-9));
  REQUIRE(direct.at("node_sum").get<double>() == Approx(clean).epsilon(1e-9));
  REQUIRE(json.at("lens").at("logit_lens").back().at("logit_difference").get<double>() == Approx(clean).epsilon(1e-9));
}

TEST_CASE("the figures agree with each other and with the files") {
  const Folder folder;
  constexpr double threshold = 0.001;
  const auto ended = run(folder, "--threshold 0.001" + json_flag(folder) + edges_flag(folder));
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  REQUIRE(ended.err.empty());
  const auto json = figures(folder);
  std::map<std::string, int> by_type;
  for (const auto& row : rows_of(folder.path / "edges.csv")) {
    if (row.at("up_kind") == "bias") continue;
    ++by_type[row.at("type")];
    if (std::abs(number(row, "em_attrib")) <= threshold) FAIL("an edge below the threshold");
  }
  for (const auto& [type, count] : by_type) REQUIRE(json.at("edges").at("by_type").at(type) == count);
  REQUIRE(by_type.size() == 5);

  const double clean = json.at("logit_difference").at("clean");
  const auto& c1 = json.at("clusters").at("C1");
  REQUIRE(c1.at("features").size() > 0);
  const double ablated = c1.at("together").at("logit_difference");
  REQUIRE(json.at("percent_reduction").at("C1").get<double>() == Approx(100 * (clean - ablated) / clean));
  for (const auto& feature : c1.at("features")) {
    const auto node = circuit::parse_node(feature.at("feature").get<std::string>());
    REQUIRE(node.kind == circuit::NodeKind::attn_feature);
    REQUIRE(node.position.value == json.at("prompts").at(0).at("roles").at("S2").get<int>());
  }
  REQUIRE(json.at("control").at("draws").size() == 20);
  for (const auto& file : json.at("files")) {
    INFO(file);
    REQUIRE(fs::file_size(file.get<std::string>()) > 0);
    REQUIRE(ended.out.find(file.get<std::string>()) != std::string::npos);
  }
}

TEST_CASE("per prompt, every prompt has rows of its own, and their mean is the batch's metric") {
  const Folder folder;
  const auto ended = run(folder, "--per-prompt --all-edges --no-qk --contrast off --dtype float64" + json_flag(folder) +
                                     edges_flag(folder));
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  const auto rows = rows_of(folder.path / "edges.csv");
  double sum = 0;
  for (const auto* const prompt : {"0", "1", "2", "3"}) sum += metric_sum(rows, prompt);
  REQUIRE(sum / 4 == Approx(figures(folder).at("logit_difference").at("clean").get<double>()).epsilon(1e-9));
  std::set<std::string> types;
  for (const auto& row : rows) types.insert(row.at("type"));
  REQUIRE(types == std::set<std::string>{"ov", "mlp", "metric"});
}

TEST_CASE("what is wrong with the input is one line on standard error, and the exit code is 1") {
  for (const auto* const flags :
       {"--head 99", "--threshold -1", "--chain sideways", "--first-batch 7", "--no-such-flag"}) {
    const Folder folder;
    const auto ended = run(folder, flags + json_flag(folder));
    INFO(flags << ": " << ended.err);
    REQUIRE(ended.code == 1);
    REQUIRE(ended.err.starts_with("error: "));
    REQUIRE(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
    REQUIRE_FALSE(fs::exists(folder.path / "figures.json"));
  }
}
