# For this project's own tests, benchmarks and examples; never included by a consumer.

set(AXIOMS_JWKS_TEST_PREFIX "" CACHE STRING "Stands before the name of every test, so that several builds can be told apart in one ctest run")
mark_as_advanced(AXIOMS_JWKS_TEST_PREFIX)

if(MSVC)
  set(axioms_jwks_strict_flags /W4 /WX)
else()
  set(axioms_jwks_strict_flags
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # False alarms about std::string's own memcpy from g++ 12 on (GCC bug 105651).
    list(APPEND axioms_jwks_strict_flags -Wno-restrict)
    # And, when it instruments, about std::stop_source's constructor.
    if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
      list(APPEND axioms_jwks_strict_flags -Wno-maybe-uninitialized)
    endif()
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 22)
    list(APPEND axioms_jwks_strict_flags -Wno-c2y-extensions)  # doctest's __COUNTER__
  endif()
endif()

# Wall-clock limits in tests are multiplied by this: sanitizers are slow, and so are emulators and builds without optimisation.
set(axioms_jwks_time_factor 1)
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  set(axioms_jwks_time_factor 10)
endif()
set(AXIOMS_JWKS_TEST_TIME_FACTOR ${axioms_jwks_time_factor} CACHE STRING "Multiplies wall-clock limits in tests")
mark_as_advanced(AXIOMS_JWKS_TEST_TIME_FACTOR)

# Everything, where cpp-httplib is there; else the core.
if(TARGET axioms_jwks)
  set(axioms_jwks_default axioms_jwks)
else()
  set(axioms_jwks_default axioms_jwks_core)
endif()

function(axioms_jwks_own_executable name)
  add_executable(${name} ${ARGN})
  target_compile_options(${name} PRIVATE ${axioms_jwks_strict_flags})
  target_compile_definitions(${name} PRIVATE AXIOMS_JWKS_TEST_TIME_FACTOR=${AXIOMS_JWKS_TEST_TIME_FACTOR})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# The header's bodies are compiled once, for all programs that have them in the usual configuration: those that are given to
# axioms_jwks_own_split() compile several times as fast as with the bodies inline.
option(AXIOMS_JWKS_TEST_SPLIT "Build suites, examples and benchmarks with AXIOMS_JWKS_SPLIT" OFF)
add_library(axioms_jwks_bodies OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/odr/implementation.cpp)
target_link_libraries(axioms_jwks_bodies PRIVATE ${axioms_jwks_default})
target_compile_definitions(axioms_jwks_bodies PRIVATE AXIOMS_JWKS_SPLIT)
target_compile_options(axioms_jwks_bodies PRIVATE ${axioms_jwks_strict_flags})
set_target_properties(axioms_jwks_bodies PROPERTIES CXX_EXTENSIONS OFF)

# For what is compiled often and need not be fast: most of a suite's compile time is the optimizer's. The header's bodies, which
# stand elsewhere in split mode, keep the build type's level, and so do benchmarks, examples and what tests the header's warnings.
function(axioms_jwks_own_level name level)
  if(NOT MSVC AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
    target_compile_options(${name} PRIVATE ${level})
  endif()
endfunction()

function(axioms_jwks_own_split name)
  target_sources(${name} PRIVATE $<TARGET_OBJECTS:axioms_jwks_bodies>)
  target_compile_definitions(${name} PRIVATE AXIOMS_JWKS_SPLIT)
endfunction()

# axioms_jwks_own_test(name label command...)
function(axioms_jwks_own_test name label)
  set(full "${AXIOMS_JWKS_TEST_PREFIX}${name}")
  add_test(NAME "${full}" COMMAND ${ARGN} COMMAND_EXPAND_LISTS)
  set_tests_properties("${full}" PROPERTIES LABELS "${label}" TIMEOUT 300)
  # Those that measure time or use a port must not share the machine.
  if(label MATCHES "^(integration|provider|bench|example)$")
    set_tests_properties("${full}" PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
