"""Compiler options of the project's own targets."""

COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-missing-field-initializers",
    # gcc 12 sees overlaps in std::string that are not there (GCC bug 105651);
    # clang does not know the warning.
    "-Wno-unknown-warning-option",
    "-Wno-restrict",
]
