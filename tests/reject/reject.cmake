# Passes if target accept_CASE builds and reject_CASE does not, with TEXT among what the compiler prints.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${BUILD}" --target accept_${CASE} RESULT_VARIABLE status
                OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the accepted twin of ${CASE} does not compile:\n${output}")
endif()
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${BUILD}" --target reject_${CASE} RESULT_VARIABLE status
                OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(status EQUAL 0)
  message(FATAL_ERROR "${CASE} compiles")
endif()
# Only what the compiler says counts: neither the command line nor the quoted source.
string(REGEX MATCHALL "[^\n]*(error|note|required)[^\n]*" said "${output}")
list(JOIN said "\n" said)
string(FIND "${said}" "${TEXT}" found)
if(found EQUAL -1)
  message(FATAL_ERROR "${CASE} is rejected, but not by ${TEXT}:\n${output}")
endif()
