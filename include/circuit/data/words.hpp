#pragma once

#include <array>
#include <string_view>

/// The closed vocabulary of the generators: every entry is meant to be one token with its leading space.
namespace circuit::data::words {

inline constexpr std::array<std::string_view, 60> women{
    "Alice", "Anna", "Beth",  "Bella", "Carol", "Clara", "Cora",  "Diana", "Donna", "Edith",  "Ella",   "Emma",
    "Erin",  "Eva",  "Faith", "Fiona", "Gina",  "Grace", "Greta", "Hanna", "Hazel", "Helen",  "Holly",  "Ida",
    "Irene", "Iris", "Jane",  "Jenny", "Joan",  "Judy",  "Julia", "Karen", "Kate",  "Laura",  "Lena",   "Lily",
    "Linda", "Lucy", "Maria", "Mary",  "Molly", "Nancy", "Nina",  "Nora",  "Olga",  "Olivia", "Paula",  "Rita",
    "Rosa",  "Ruth", "Sally", "Sarah", "Sonia", "Susan", "Tanya", "Tina",  "Vera",  "Wendy",  "Yvonne", "Zoe"};

inline constexpr std::array<std::string_view, 60> men{
    "Adam",   "Alan",  "Albert", "Arthur", "Ben",    "Bob",   "Brian", "Carl",   "Chris",  "Colin", "Daniel", "David",
    "Dennis", "Derek", "Edgar",  "Edward", "Eric",   "Ethan", "Felix", "Frank",  "Fred",   "Gary",  "George", "Gordon",
    "Harry",  "Henry", "Hugo",   "Ian",    "Ivan",   "Jack",  "Jacob", "James",  "John",   "Keith", "Kevin",  "Larry",
    "Leo",    "Louis", "Luke",   "Mark",   "Martin", "Max",   "Neil",  "Nick",   "Oliver", "Oscar", "Paul",   "Peter",
    "Philip", "Ralph", "Robert", "Roger",  "Samuel", "Scott", "Simon", "Steven", "Thomas", "Tony",  "Victor", "Walter"};

inline constexpr std::array<std::string_view, 28> places{
    "store",  "park",   "school", "garden",  "station", "office", "museum", "market", "library", "church",
    "beach",  "hotel",  "farm",   "theater", "kitchen", "bridge", "river",  "castle", "harbor",  "bakery",
    "island", "forest", "lake",   "factory", "airport", "tower",  "square", "gym"};

inline constexpr std::array<std::string_view, 28> objects{
    "ring",   "book",  "drink",   "ball",   "letter", "basket", "watch",  "coat", "ticket", "camera",
    "guitar", "map",   "hammer",  "knife",  "cake",   "lamp",   "pencil", "rope", "shirt",  "spoon",
    "toy",    "phone", "blanket", "bottle", "coin",   "flute",  "candle", "scarf"};

/// Nouns with their plurals, for agreement.
struct Noun {
  std::string_view one;
  std::string_view many;
};
inline constexpr std::array<Noun, 32> nouns{
    {{"key", "keys"},         {"dog", "dogs"},       {"cat", "cats"},           {"teacher", "teachers"},
     {"doctor", "doctors"},   {"farmer", "farmers"}, {"pilot", "pilots"},       {"child", "children"},
     {"man", "men"},          {"woman", "women"},    {"tree", "trees"},         {"flower", "flowers"},
     {"horse", "horses"},     {"bird", "birds"},     {"car", "cars"},           {"truck", "trucks"},
     {"house", "houses"},     {"door", "doors"},     {"table", "tables"},       {"chair", "chairs"},
     {"picture", "pictures"}, {"author", "authors"}, {"lawyer", "lawyers"},     {"guard", "guards"},
     {"student", "students"}, {"singer", "singers"}, {"neighbor", "neighbors"}, {"boat", "boats"},
     {"stone", "stones"},     {"mouse", "mice"},     {"baker", "bakers"},       {"painter", "painters"}}};

inline constexpr std::array<std::string_view, 20> adjectives{
    "old",   "young", "small", "big",   "red",   "green", "quiet", "loud",  "happy", "sad",
    "clean", "dirty", "heavy", "light", "brave", "shy",   "tall",  "short", "warm",  "cold"};

inline constexpr std::array<std::string_view, 16> past_verbs{
    "saw",    "liked",   "found",   "watched", "followed", "heard", "missed", "drew",
    "helped", "carried", "cleaned", "moved",   "bought",   "hid",   "lost",   "painted"};

inline constexpr std::array<std::string_view, 16> events{"war",    "siege",  "voyage",  "trial",  "strike", "famine",
                                                         "reign",  "study",  "project", "debate", "storm",  "drought",
                                                         "treaty", "search", "journey", "revolt"};

}  // namespace circuit::data::words
