#include "circuit/data/knowledge_tasks.hpp"

#include <algorithm>
#include <set>
#include <string>

#include "catch.hpp"

using namespace circuit::data;

TEST_CASE("a capital's prompt asks for its country, and the corrupt one for another with its own city") {
  Random random{1};
  std::set<std::string> asked;
  for (int i = 0; i < 100; ++i) {
    const auto prompt = make_capital(random);
    const auto place = prompt.roles.at("country");
    const auto city_of = [](const std::string& country) {
      const auto found = std::find_if(words::capitals.begin(), words::capitals.end(),
                                      [&](const auto& c) { return ' ' + std::string{c.country} == country; });
      REQUIRE(found != words::capitals.end());
      return ' ' + std::string{found->city};
    };
    CHECK(prompt.answers == std::vector{city_of(prompt.clean.at(place))});
    CHECK(prompt.wrong_answers == std::vector{city_of(prompt.corrupt.at(place))});
    CHECK(prompt.answers != prompt.wrong_answers);
    CHECK(prompt.roles.at("end") == prompt.clean.size() - 1);
    asked.insert(prompt.clean.at(place));
  }
  CHECK(asked.size() > 20);
}

TEST_CASE("a docstring describes the first two arguments, and the third is asked for") {
  Random random{2};
  for (int i = 0; i < 50; ++i) {
    const auto prompt = make_docstring(random);
    const auto clean = [&](const char* role) { return prompt.clean.at(prompt.roles.at(role)); };
    CHECK(clean("first") == clean("doc1"));
    CHECK(clean("second") == clean("doc2"));
    CHECK(prompt.answers == std::vector{clean("third")});
    CHECK(std::count(prompt.clean.begin(), prompt.clean.end(), clean("third")) == 1);
    CHECK(std::count(prompt.corrupt.begin(), prompt.corrupt.end(), clean("third")) == 0);
    CHECK(prompt.clean.size() == prompt.corrupt.size());
    CHECK(prompt.corrupt.at(prompt.roles.at("doc1")) == clean("doc1"));
    CHECK(prompt.clean.back() == "param");
    const std::set<std::string> wrong(prompt.wrong_answers.begin(), prompt.wrong_answers.end());
    CHECK(wrong.size() == 7);
    CHECK(wrong.count(prompt.answers.front()) == 0);
  }
}

TEST_CASE("a docstring prompt reads as Python") {
  Random random{3};
  const auto text = text_of(make_docstring(random).clean);
  CHECK(text.starts_with("def run(self, "));
  CHECK(text.find("):\n    \"\"\"The ") != text.npos);
  CHECK(text.find("\n\n    :param ") != text.npos);
  CHECK(text.ends_with("\n    :param"));
}
