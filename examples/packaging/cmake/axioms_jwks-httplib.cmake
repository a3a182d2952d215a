# axioms_jwks_find_httplib(): looks for cpp-httplib with OpenSSL. Used by the build and by the installed config.
#
# Sets in the caller:
#   AXIOMS_JWKS_HTTPLIB_TARGETS   what to link, empty if there is none
#   AXIOMS_JWKS_HTTPLIB_FROM      target, cmake, pkg-config or header
#   AXIOMS_JWKS_HTTPLIB_REASON    why there is none
#
# cpp-httplib's class layouts depend on CPPHTTPLIB_OPENSSL_SUPPORT, and it comes header-only as well as compiled. A
# header that is used without the macros its library was compiled with links, and then corrupts memory; therefore each
# way below brings its own macros, and a bare header beside a compiled library is refused.

function(axioms_jwks_find_httplib)
  set(targets "")
  set(from "")
  set(reason "no target httplib::httplib, no CMake package httplib, no pkg-config module cpp-httplib, no httplib.h. Install it (Debian, \
Ubuntu: libcpp-httplib-dev with pkg-config; Fedora: cpp-httplib-devel; brew, vcpkg: cpp-httplib), or make it available before \
axioms_jwks, where both come by FetchContent")

  # Without a version: upstream's package is SameMinorVersion, so any version asked for would refuse all others.
  set(had_target OFF)
  if(TARGET httplib::httplib)
    set(had_target ON)
  else()
    find_package(httplib CONFIG QUIET)
  endif()
  if(TARGET httplib::httplib)
    set(targets httplib::httplib)
    set(from cmake)
    if(had_target)
      set(from target)
    endif()
  endif()

  if(NOT targets)
    find_package(PkgConfig QUIET)
    if(PKG_CONFIG_FOUND)
      if(NOT TARGET PkgConfig::axioms_jwks_cpphttplib)
        pkg_check_modules(axioms_jwks_cpphttplib QUIET IMPORTED_TARGET GLOBAL cpp-httplib>=0.11.4)
      endif()
      if(TARGET PkgConfig::axioms_jwks_cpphttplib)
        if("${axioms_jwks_cpphttplib_CFLAGS}" MATCHES "CPPHTTPLIB_OPENSSL_SUPPORT")
          set(targets PkgConfig::axioms_jwks_cpphttplib)
          set(from pkg-config)
        else()
          set(reason "pkg-config's cpp-httplib was compiled without OpenSSL")
        endif()
      endif()
    endif()
  endif()

  if(NOT targets AND NOT from)
    find_path(AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR httplib.h PATH_SUFFIXES httplib cpp-httplib
              DOC "Folder of a header-only cpp-httplib")
    find_library(AXIOMS_JWKS_HTTPLIB_COMPILED cpp-httplib DOC "A compiled cpp-httplib, which a bare header must not meet")
    mark_as_advanced(AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR AXIOMS_JWKS_HTTPLIB_COMPILED)
    if(AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR AND AXIOMS_JWKS_HTTPLIB_COMPILED)
      set(reason "${AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR}/httplib.h belongs to ${AXIOMS_JWKS_HTTPLIB_COMPILED}, and only \
pkg-config knows the macros it was compiled with: install pkg-config, or make a target httplib::httplib yourself")
    elseif(AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR)
      if(NOT TARGET axioms_jwks_httplib_header)
        add_library(axioms_jwks_httplib_header INTERFACE IMPORTED GLOBAL)
        set_target_properties(axioms_jwks_httplib_header PROPERTIES
          INTERFACE_COMPILE_DEFINITIONS CPPHTTPLIB_OPENSSL_SUPPORT
          INTERFACE_INCLUDE_DIRECTORIES "${AXIOMS_JWKS_HTTPLIB_INCLUDE_DIR}")
        if(WIN32)
          set_target_properties(axioms_jwks_httplib_header PROPERTIES INTERFACE_LINK_LIBRARIES "ws2_32;crypt32")
        endif()
      endif()
      set(targets axioms_jwks_httplib_header)
      set(from header)
    endif()
  endif()

  # We call libssl ourselves; a compiled cpp-httplib does not pass it on.
  if(targets)
    if(NOT TARGET OpenSSL::SSL)
      find_package(OpenSSL 3.0 QUIET)
    endif()
    if(TARGET OpenSSL::SSL)
      list(APPEND targets OpenSSL::SSL)
    else()
      set(targets "")
      set(reason "cpp-httplib is there, but libssl is not")
    endif()
  endif()

  set(AXIOMS_JWKS_HTTPLIB_TARGETS "${targets}" PARENT_SCOPE)
  set(AXIOMS_JWKS_HTTPLIB_FROM "${from}" PARENT_SCOPE)
  set(AXIOMS_JWKS_HTTPLIB_REASON "${reason}" PARENT_SCOPE)
endfunction()
