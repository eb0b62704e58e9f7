# Installs both libraries, the headers, the CMake package and the pkg-config file.
include(CMakePackageConfigHelpers)

set(reeve_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/reeve")
install(TARGETS reeve_static reeve_shared EXPORT reeve-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(DIRECTORY include/reeve DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")
install(EXPORT reeve-targets NAMESPACE reeve:: DESTINATION "${reeve_package_dir}")

configure_package_config_file(cmake/reeveConfig.cmake.in "${PROJECT_BINARY_DIR}/reeveConfig.cmake"
  INSTALL_DESTINATION "${reeve_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/reeveConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/reeveConfig.cmake"
  "${PROJECT_BINARY_DIR}/reeveConfigVersion.cmake"
  cmake/reeve-packages.cmake
  DESTINATION "${reeve_package_dir}")

# The directories are found from where reeve.pc lies, so an installed tree can be moved.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR
  BASE_DIRECTORY "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" OUTPUT_VARIABLE reeve_pc_libdir)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR
  BASE_DIRECTORY "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" OUTPUT_VARIABLE reeve_pc_includedir)
set(reeve_pc_cares "")
if(REEVE_CARES)
  set(reeve_pc_cares ", libcares >= 1.16")
endif()
configure_file(cmake/reeve.pc.in "${PROJECT_BINARY_DIR}/reeve.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/reeve.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
