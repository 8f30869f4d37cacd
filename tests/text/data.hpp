#pragma once

#include <filesystem>

/// The golden tokenizers.
inline const std::filesystem::path data = std::filesystem::path{CIRCUIT_TEST_DATA} / "tokenizer";
