# Headers, targets and the package configuration. One export file per component, so that a machine without LibTorch or
# PCRE2 can still load the part that needs neither.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/circuit")
foreach(pair IN ITEMS "circuit_core|core" "circuit_text|text" "circuit|circuit")
  string(REGEX MATCH "^(.*)[|](.*)$" _ "${pair}")
  set(target ${CMAKE_MATCH_1})
  set(component ${CMAKE_MATCH_2})
  if(TARGET ${target})
    install(TARGETS ${target} EXPORT circuit-${component} FILE_SET HEADERS)
    install(EXPORT circuit-${component} NAMESPACE circuit:: DESTINATION "${package_dir}")
  endif()
endforeach()
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/circuit-config.cmake.in"
                              "${PROJECT_BINARY_DIR}/circuit-config.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/circuit-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/circuit-config.cmake" "${PROJECT_BINARY_DIR}/circuit-config-version.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/CircuitDependencies.cmake" "${PROJECT_SOURCE_DIR}/cmake/CircuitTorch.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/CircuitCompiled.cmake" "${PROJECT_SOURCE_DIR}/cmake/circuit_compiled.cpp"
        DESTINATION "${package_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
