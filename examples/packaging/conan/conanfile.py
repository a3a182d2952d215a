# conan create examples/packaging/conan
#
# Packages the tree in which it stands. In ConanCenter, export_sources() and set_version() give way to conandata.yml and source().
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout

required_conan_version = ">=2.1"


class AxiomsJwksConan(ConanFile):
    name = "axioms_jwks"
    description = "Keeps the JSON Web Key Sets of identity providers for C++20, in one header"
    license = "MIT"
    topics = ("jwks", "jwk", "jwt", "oidc", "oauth2", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_httplib": [True, False]}
    default_options = {"with_httplib": True, "cpp-httplib/*:with_openssl": True}
    no_copy_source = True

    @property
    def _tree(self):
        return os.path.join(self.recipe_folder, "..", "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._tree, "axioms_jwks.hpp"))
        parts = [re.search(rf"#define AXIOMS_JWKS_VERSION_{part} (\d+)", header).group(1) for part in ("MAJOR", "MINOR", "PATCH")]
        self.version = ".".join(parts)

    def export_sources(self):
        for name in ("axioms_jwks.hpp", "LICENSE"):
            copy(self, name, src=self._tree, dst=self.export_sources_folder)

    def config_options(self):
        if self.settings.os == "Windows":
            self.options.with_httplib = False

    def layout(self):
        basic_layout(self)

    def requirements(self):
        self.requires("openssl/[>=3.0 <4]", transitive_headers=True, transitive_libs=True)
        self.requires("nlohmann_json/[>=3.10 <4]", transitive_headers=True)
        if self.options.with_httplib:
            self.requires("cpp-httplib/[>=0.11.4 <1]", transitive_headers=True, transitive_libs=True)

    def package_id(self):
        self.info.clear()

    def validate(self):
        check_min_cppstd(self, 20)
        if self.options.with_httplib:
            if self.settings.os == "Windows":
                raise ConanInvalidConfiguration("the default fetcher is for POSIX systems: use with_httplib=False")
            if not self.dependencies["cpp-httplib"].options.with_openssl:
                raise ConanInvalidConfiguration("the default fetcher needs cpp-httplib/*:with_openssl=True")

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        copy(self, "axioms_jwks.hpp", src=self.source_folder, dst=os.path.join(self.package_folder, "include"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "axioms_jwks")
        core = self.cpp_info.components["core"]
        core.set_property("cmake_target_name", "axioms::jwks_core")
        core.set_property("pkg_config_name", "axioms_jwks_core")
        core.defines = ["AXIOMS_JWKS_NO_HTTPLIB"]
        core.requires = ["openssl::crypto", "nlohmann_json::nlohmann_json"]
        components = [core]
        if self.options.with_httplib:
            full = self.cpp_info.components["httplib"]
            full.set_property("cmake_target_name", "axioms::jwks")
            full.set_property("pkg_config_name", "axioms_jwks")
            full.requires = ["openssl::crypto", "openssl::ssl", "nlohmann_json::nlohmann_json", "cpp-httplib::cpp-httplib"]
            components.append(full)
        for component in components:
            component.bindirs = []
            component.libdirs = []
            if self.settings.os in ("Linux", "FreeBSD"):
                component.system_libs = ["pthread"]
