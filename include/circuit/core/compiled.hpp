#pragma once

/// Functions that open files are two fifths of what compiling a small program costs, and little of its running.
/// Header-only, every file that calls them compiles them. A program that links `circuit::compiled` instead of
/// `circuit::circuit` compiles them once: CIRCUIT_COMPILED leaves them declared in all files but that target's own.
///
///   #ifdef CIRCUIT_DEFINE
///   CIRCUIT_DEFINE Tokenizer read_tokenizer_json(...) { ... }
///   #endif
///
/// Templates need no macro: `extern template` behind their definition says the same of one instance.

#if !defined(CIRCUIT_COMPILED)
#define CIRCUIT_DEFINE inline  // in every file
#elif defined(CIRCUIT_COMPILED_HERE)
#define CIRCUIT_DEFINE  // in cmake/circuit_compiled.cpp alone
#endif
