#pragma once

// What nearly every tensor-free test parses, compiled once.
#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <ranges>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "catch.hpp"
