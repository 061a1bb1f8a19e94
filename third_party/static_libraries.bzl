"""The libraries of the distribution that a program can have in itself."""

ABSL = [
    "absl_statusor",
    "absl_status",
    "absl_cord",
    "absl_cordz_info",
    "absl_cord_internal",
    "absl_cordz_functions",
    "absl_cordz_handle",
    "absl_str_format_internal",
    "absl_strerror",
    "absl_hash",
    "absl_city",
    "absl_low_level_hash",
    "absl_raw_hash_set",
    "absl_hashtablez_sampler",
    "absl_exponential_biased",
    "absl_bad_optional_access",
    "absl_bad_variant_access",
    "absl_synchronization",
    "absl_graphcycles_internal",
    "absl_stacktrace",
    "absl_symbolize",
    "absl_debugging_internal",
    "absl_demangle_internal",
    "absl_malloc_internal",
    "absl_time",
    "absl_civil_time",
    "absl_time_zone",
    "absl_strings",
    "absl_strings_internal",
    "absl_base",
    "absl_spinlock_wait",
    "absl_int128",
    "absl_throw_delegate",
    "absl_raw_logging_internal",
    "absl_log_severity",
]

# For the linkopts of a program that finds no library of the system at all, not even
# libc. Some of them are in those of its dependencies, too.
FULLY_STATIC = [
    # Not by gold, which cannot make one that is loaded anywhere.
    "-fuse-ld=bfd",
    "-static-pie",
    "-Wl,--start-group",
    "-lstdc++",
    "-lzstd",
    "-llzma",
    "-lbz2",
    "-lz",
] + ["-l" + library for library in ABSL] + [
    "-Wl,--end-group",
]

# For the linkopts of a program that is started for each task anew: loading these as
# shared libraries takes longer than what it does. They come before those of its
# dependencies, of which --as-needed then leaves out what nothing asks for any more.
# What has no archive (libmnl) and what should be the system's (libc) stays shared.
STATIC = [
    "-Wl,--as-needed",
    "-Wl,-Bstatic",
    "-Wl,--start-group",
    "-lprotobuf-lite",
    "-lseccomp",
    "-lnftnl",
    "-lstdc++",
] + ["-l" + library for library in ABSL] + [
    "-Wl,--end-group",
    "-Wl,-Bdynamic",
    "-static-libgcc",
    # Its symbols are nobody else's.
    "-Wl,--exclude-libs,ALL",
]
