# circuit::compiled: circuit::circuit whose loaders are compiled once, into a static library. It is built, with the flags of
# the project that asks for it, where something links it.
include_guard(GLOBAL)
add_library(circuit_compiled STATIC EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/circuit_compiled.cpp")
add_library(circuit::compiled ALIAS circuit_compiled)
target_link_libraries(circuit_compiled PUBLIC circuit::circuit)
set_target_properties(circuit_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON)  # for plugins and Python extensions
target_compile_definitions(circuit_compiled PUBLIC CIRCUIT_COMPILED)
