"""Programs as parts of the library."""

def embedded_program(name, program, symbol, with_sanitizers = True):
    """Makes the object file `name` with the program, without its symbols.

    It defines `symbol` and `symbol`_end.

    Args:
      name: of the rule; the file is name + ".o".
      program: an executable.
      symbol: of its first byte; of the byte behind its last, with "_end".
      with_sanitizers: whether it runs where sanitizers' libraries are not. If
        not, it is empty in such builds.
    """
    native.genrule(
        name = name,
        srcs = [program] if with_sanitizers else select({
            "//third_party:with_prelude": [],
            "//conditions:default": [program],
        }),
        outs = [name + ".o"],
        cmd = """
if [ -n "$(SRCS)" ]; then strip -o $(@D)/{name}.bin $(SRCS); else : > $(@D)/{name}.bin; fi &&
cat > $(@D)/{name}.s <<END &&
  .section .rodata.{symbol}, "a"
  .globl {symbol}, {symbol}_end
  .balign 16
{symbol}:
  .incbin "$(@D)/{name}.bin"
{symbol}_end:
  .byte 0
  .section .note.GNU-stack, "", %progbits
END
$(CC) -c -o $@ $(@D)/{name}.s && rm $(@D)/{name}.bin $(@D)/{name}.s
""".format(name = name, symbol = symbol),
        toolchains = ["@bazel_tools//tools/cpp:current_cc_toolchain"],
    )
