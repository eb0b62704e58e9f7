# SPDX-License-Identifier: MIT
#
# explore.cmake -- the tests that run models: tests/explore/*_test.c, see explore.h.
#
# mem/ and sched/ are compiled a second time, as models see them: with the explorer's atomics, in
# its world (world.h), with rings of four slots, and with assertions. They are optimised whatever
# the preset is, or the searches would take minutes.
#
# A canary is such a test built with a bug planted in the code under test, by replacing a piece of
# text in a copy. canary_test.c runs it and fails unless the explorer finds the bug; if the text is
# not there any more, the build says so and that test fails.

# explore_plant(FOUND_VAR FOLDER FILE FROM TO [FROM TO ...]): copies FILE, changed, to FOLDER. What
# was changed for models already is the original for canaries.
function(explore_plant found_var folder file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${file}")
  set(original "${PROJECT_SOURCE_DIR}/${file}")
  set(models "${explore_folder}/models")
  if(NOT folder STREQUAL models AND EXISTS "${models}/${file}")
    set(original "${models}/${file}")
  endif()
  file(READ "${original}" text)
  set(found 1)
  set(i 3)
  while(i LESS ARGC)
    math(EXPR to "${i} + 1")
    string(FIND "${text}" "${ARGV${i}}" at)
    if(at EQUAL -1)
      set(found 0)
      message(WARNING "${file} does not hold what a model or canary changes there:\n${ARGV${i}}")
    endif()
    string(REPLACE "${ARGV${i}}" "${ARGV${to}}" text "${text}")
    math(EXPR i "${i} + 2")
  endwhile()
  set(before "")
  if(EXISTS "${folder}/${file}")
    file(READ "${folder}/${file}" before)
  endif()
  if(NOT before STREQUAL text)
    file(WRITE "${folder}/${file}" "${text}")
  endif()
  set(${found_var} ${found} PARENT_SCOPE)
endfunction()

set(explore_folder "${CMAKE_CURRENT_BINARY_DIR}/explore")
set(explore_definitions RV_DEBUG=1 RV_NO_MIMALLOC=1 RV_RUNQ_SLOTS=4
  "RV_ATOMIC_BACKEND=\"tests/explore/rv_atomic_explore.h\"")

# The explorer itself lives outside the models' world.
add_library(explorer OBJECT explore/explore.c explore/world.c)
target_link_libraries(explorer PRIVATE reeve_build ${reeve_packages})
target_compile_definitions(explorer PRIVATE ${explore_definitions})
target_compile_options(explorer PRIVATE -O2)

# How code in a model is compiled.
add_library(explored_build INTERFACE)
target_compile_definitions(explored_build INTERFACE ${explore_definitions} WORLD_INSIDE=1)
target_compile_options(explored_build INTERFACE
  -O2 "$<$<COMPILE_LANGUAGE:C>:SHELL:-include \"${CMAKE_CURRENT_SOURCE_DIR}/explore/world.h\">")
target_link_libraries(explored_build INTERFACE reeve_build ${reeve_packages})

# The library of models. Two of its numbers are smaller there, so that what comes after so many
# spins and ticks is within reach of a search.
explore_plant(found "${explore_folder}/models" mem/lock.c "#define SPINS 64" "#define SPINS 1")
explore_plant(found "${explore_folder}/models" sched/park.c
  "TICK_SHIFT_MAX = 6" "TICK_SHIFT_MAX = 0")
explore_plant(found "${explore_folder}/models" sched/loan.c "SPINS = 200" "SPINS = 1")
set(explored_sources "")
foreach(source ${reeve_sources})
  cmake_path(RELATIVE_PATH source BASE_DIRECTORY "${PROJECT_SOURCE_DIR}" OUTPUT_VARIABLE path)
  if(path MATCHES "^(mem|sched)/" AND NOT path MATCHES "^mem/(die|local)\\.c$")
    if(EXISTS "${explore_folder}/models/${path}")
      set(source "${explore_folder}/models/${path}")
    endif()
    list(APPEND explored_sources "${source}")
  endif()
endforeach()
add_library(explored STATIC ${explored_sources})
target_link_libraries(explored PRIVATE explored_build)

file(GLOB explore_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/explore/*_test.c")
foreach(source ${explore_tests})
  cmake_path(GET source STEM name)
  string(REGEX REPLACE "_test$" "" name "${name}")
  add_library(explore_${name} OBJECT "${source}")
  target_link_libraries(explore_${name} PRIVATE explored_build)
  add_executable(test_explore.${name} $<TARGET_OBJECTS:explore_${name}> $<TARGET_OBJECTS:explorer>)
  target_link_libraries(test_explore.${name} PRIVATE explored_build explored)
  set_target_properties(test_explore.${name} PROPERTIES OUTPUT_NAME ${name}_test
    LINKER_LANGUAGE C RUNTIME_OUTPUT_DIRECTORY "${explore_folder}")
  reeve_list_test(test_explore.${name} "${source}" explore.${name} "${explore_folder}/${name}_test")
endforeach()

# explore_canary(NAME TEST "SOURCE ..." FILE FROM TO [FROM TO ...]): TEST with the bug NAME in FILE.
# SOURCE: the files of the library that have to be compiled again for it; FILE is, if it is one.
set(explore_canaries "")
function(explore_canary name test sources file)
  if(REEVE_SANITIZE MATCHES "thread") # no model runs there
    return()
  endif()
  set(folder "${explore_folder}/canaries/${name}")
  if(ARGC GREATER 6)
    explore_plant(found "${folder}" "${file}" "${ARGV4}" "${ARGV5}" "${ARGV6}" "${ARGV7}")
  else()
    explore_plant(found "${folder}" "${file}" "${ARGV4}" "${ARGV5}")
  endif()
  set(again "")
  foreach(source ${sources})
    list(APPEND again "${PROJECT_SOURCE_DIR}/${source}")
  endforeach()
  if(file MATCHES "\\.c$")
    list(APPEND again "${folder}/${file}" $<TARGET_OBJECTS:explore_${test}>)
  else()
    list(APPEND again "${CMAKE_CURRENT_SOURCE_DIR}/explore/${test}_test.c")
  endif()
  add_executable(canary_${name} ${again} $<TARGET_OBJECTS:explorer>)
  target_link_libraries(canary_${name} PRIVATE explored_build explored)
  target_include_directories(canary_${name} BEFORE PRIVATE "${folder}")
  target_compile_options(canary_${name} PRIVATE -w) # what a bug leaves unused is no news
  set_target_properties(canary_${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${explore_folder}/canaries")
  add_dependencies(test_explore.canary canary_${name})
  string(APPEND explore_canaries
    "    { \"${name}\", \"$<TARGET_FILE:canary_${name}>\", \"${file}\", ${found} },\n")
  set(explore_canaries "${explore_canaries}" PARENT_SCOPE)
endfunction()

include(explore/canaries.cmake)
file(GENERATE OUTPUT "${explore_folder}/canaries.inc" CONTENT "${explore_canaries}")
target_include_directories(explore_canary PRIVATE "${explore_folder}")
