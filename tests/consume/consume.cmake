# Configures, builds and runs one consumer in a folder of its own, from nothing.
# -D NAME= CHECKOUT= BUILD= PREFIX= (of a fresh install) COMPILER= GENERATOR= TORCH= VERSION= CCACHE=
cmake_minimum_required(VERSION 3.25)
set(folder "${BUILD}/tests/consume/${NAME}")
file(REMOVE_RECURSE "${folder}")

function(step what)  # <command>...
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message(STATUS "${output}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "consumer ${NAME}: ${what} ended with ${status}")
  endif()
endfunction()

set(arguments "-DCMAKE_PREFIX_PATH=${PREFIX}" "-DWANTED_VERSION=${VERSION}" "-DHIDDEN=${CHECKOUT}/tests/consume/hidden")
if(NAME STREQUAL "core")
  list(APPEND arguments -DCIRCUIT_TORCH=/nowhere)  # looking for LibTorch would now be an error
else()
  list(APPEND arguments "-DCIRCUIT_TORCH=${TORCH}")
endif()
if(NAME STREQUAL "fetch")
  set(arguments "-DCHECKOUT=${CHECKOUT}" "-DCIRCUIT_TORCH=${TORCH}")
endif()
step("configuring" "${CMAKE_COMMAND}" -S "${CHECKOUT}/tests/consume/${NAME}" -B "${folder}" -G "${GENERATOR}"
     -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=-O0 -Werror" "-DCMAKE_CXX_COMPILER=${COMPILER}" ${arguments})
step("building" "${CMAKE_COMMAND}" --build "${folder}")
step("running" "${folder}/consume")
if(EXISTS "${folder}/consume_compiled")
  step("running the compiled one" "${folder}/consume_compiled")
endif()

if(NAME STREQUAL "core")
  execute_process(COMMAND ldd "${folder}/consume" OUTPUT_VARIABLE libraries)
  if(libraries MATCHES "libtorch|libc10|pcre2")
    message(FATAL_ERROR "a program of circuit::core links\n${libraries}")
  endif()
endif()
