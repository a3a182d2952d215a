"""conan_stand_in.py TREE VERSION: runs the Conan recipe's methods with stand-ins for what they call.

That Conan itself takes the recipe, it cannot show.
"""
import os
import shutil
import sys
import tempfile
import types

tree, version = sys.argv[1:]


class anything(types.SimpleNamespace):
    """Has every attribute, as another of these."""

    def __getattr__(self, name):
        value = anything()
        setattr(self, name, value)
        return value

    def set_property(self, name, value):
        self.__dict__.setdefault("properties", {})[name] = value


class components(dict):
    def __missing__(self, name):
        self[name] = anything()
        return self[name]


class ConanFile:
    def __init__(self, folder, **options):
        self.recipe_folder = folder
        self.settings = anything(os="Linux")
        self.options = types.SimpleNamespace(**options)
        self.required = {}
        self.requires = lambda reference, **traits: self.required.update({reference.split("/")[0]: reference})
        self.dependencies = {"cpp-httplib": anything(options=anything(with_openssl=True))}
        self.cpp_info = anything(components=components())
        self.info = anything(clear=lambda: None)


def copy(_, pattern, src, dst):
    os.makedirs(dst, exist_ok=True)
    shutil.copy(os.path.join(src, pattern), dst)


def load(_, path):
    with open(path, encoding="utf-8") as file:
        return file.read()


modules = {
    "conan": {"ConanFile": ConanFile},
    "conan.errors": {"ConanInvalidConfiguration": type("ConanInvalidConfiguration", (Exception,), {})},
    "conan.tools": {},
    "conan.tools.build": {"check_min_cppstd": lambda _, standard: None, "can_run": lambda _: True},
    "conan.tools.cmake": {"CMake": anything, "CMakeToolchain": anything, "cmake_layout": lambda _: None},
    "conan.tools.files": {"copy": copy, "load": load},
    "conan.tools.layout": {"basic_layout": lambda _: None},
}
for name, members in modules.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


def recipe(path):
    members = {"__name__": "conanfile"}
    exec(compile(load(None, path), path, "exec"), members)
    return [value for value in members.values() if isinstance(value, type) and issubclass(value, ConanFile) and value is not ConanFile][0]


def expect(what, wanted, got):
    if wanted != got:
        sys.exit(f"{what}: wanted {wanted}, got {got}")


folder = os.path.join(tree, "examples/packaging/conan")
AxiomsJwks = recipe(os.path.join(folder, "conanfile.py"))
recipe(os.path.join(folder, "test_package/conanfile.py"))
for with_httplib in (True, False):
    with tempfile.TemporaryDirectory() as scratch:
        package = AxiomsJwks(folder, with_httplib=with_httplib)
        package.export_sources_folder = package.source_folder = os.path.join(scratch, "source")
        package.package_folder = os.path.join(scratch, "package")
        for step in ("set_version", "config_options", "layout", "requirements", "validate", "export_sources", "package", "package_id", "package_info"):
            getattr(package, step)()
        expect("version", version, package.version)
        wanted = {"openssl", "nlohmann_json"} | ({"cpp-httplib"} if with_httplib else set())
        expect("requirements", wanted, set(package.required))
        for file in ("include/axioms_jwks.hpp", "licenses/LICENSE"):
            expect(file, True, os.path.isfile(os.path.join(package.package_folder, file)))
        targets = {part.properties["cmake_target_name"]: part for part in package.cpp_info.components.values()}
        wanted = {"axioms::jwks_core"} | ({"axioms::jwks"} if with_httplib else set())
        expect("CMake targets", wanted, set(targets))
        expect("the core's macros", ["AXIOMS_JWKS_NO_HTTPLIB"], targets["axioms::jwks_core"].defines)
print(f"the Conan recipe packages {version}, with cpp-httplib and without")
