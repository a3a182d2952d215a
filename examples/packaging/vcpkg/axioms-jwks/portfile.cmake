# An overlay port: it installs the tree in which it stands. In a registry the next line is instead
#   vcpkg_from_github(OUT_SOURCE_PATH SOURCE_PATH REPO <owner>/axioms_jwks REF "v${VERSION}" SHA512 <of the release> HEAD_REF main)
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS FEATURE_OPTIONS
    FEATURES
        httplib AXIOMS_JWKS_WITH_HTTPLIB
)

set(VCPKG_BUILD_TYPE release) # header-only

vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        ${FEATURE_OPTIONS}
        -DAXIOMS_JWKS_BUILD_TESTS=OFF
        -DAXIOMS_JWKS_BUILD_EXAMPLES=OFF
        -DAXIOMS_JWKS_INSTALL=ON
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME axioms_jwks CONFIG_PATH share/cmake/axioms_jwks)
vcpkg_fixup_pkgconfig()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/lib" "${CURRENT_PACKAGES_DIR}/share/licenses")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
