"""Programs for roots that have no libraries."""

def static_program(name, src):
    """Builds `name`, statically linked, from one C file.

    Not by cc_binary: the options that a build adds for sanitizers need
    libraries at run time.
    """
    native.genrule(
        name = name + "_program",
        testonly = True,
        srcs = [src],
        outs = [name],
        cmd = "$(CC) -std=gnu17 -O2 -Wall -Wextra -Werror -static -o $@ $<",
        toolchains = ["@bazel_tools//tools/cpp:current_cc_toolchain"],
    )
