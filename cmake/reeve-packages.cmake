# Finds what reeve is linked with and lists it in reeve_packages. Included by reeve's own build and,
# once installed, by reeveConfig.cmake, so that both see the same packages under the same names.
#
#   liburing >= 2.3     prepares submissions
#   Concurrency Kit     stacks and atomics between workers
#   mimalloc >= 2.0     memory (not under sanitizers, which must see every allocation)
#   c-ares >= 1.16      looks names up, if REEVE_CARES asks for it; else getaddrinfo does
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(reeve_uring REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(reeve_ck REQUIRED IMPORTED_TARGET ck>=0.7.1)
set(reeve_packages PkgConfig::reeve_uring PkgConfig::reeve_ck Threads::Threads)

if(NOT REEVE_SANITIZE)
  find_path(REEVE_MIMALLOC_INCLUDE mimalloc.h PATH_SUFFIXES mimalloc-2.1 mimalloc-2.0)
  find_library(REEVE_MIMALLOC_LIBRARY mimalloc PATH_SUFFIXES mimalloc-2.1 mimalloc-2.0)
  mark_as_advanced(REEVE_MIMALLOC_INCLUDE REEVE_MIMALLOC_LIBRARY)
  if(NOT REEVE_MIMALLOC_INCLUDE OR NOT REEVE_MIMALLOC_LIBRARY)
    message(FATAL_ERROR
      "mimalloc was not found. On Debian and Ubuntu: apt-get install libmimalloc-dev")
  endif()
  if(NOT TARGET reeve_mimalloc)
    # libmimalloc.so also defines malloc and its kin. reeve must not change the allocator of its
    # host, so libc comes before it in the order in which the dynamic linker searches.
    add_library(reeve_mimalloc INTERFACE IMPORTED)
    target_include_directories(reeve_mimalloc INTERFACE "${REEVE_MIMALLOC_INCLUDE}")
    target_link_libraries(reeve_mimalloc INTERFACE -lc "${REEVE_MIMALLOC_LIBRARY}")
  endif()
  list(APPEND reeve_packages reeve_mimalloc)
endif()

if(REEVE_CARES)
  pkg_check_modules(reeve_cares IMPORTED_TARGET libcares>=1.16)
  if(reeve_cares_FOUND)
    list(APPEND reeve_packages PkgConfig::reeve_cares)
  else()
    message(STATUS "c-ares was not found, so getaddrinfo looks names up. "
      "On Debian and Ubuntu: apt-get install libc-ares-dev")
    set(REEVE_CARES OFF)
  endif()
endif()
