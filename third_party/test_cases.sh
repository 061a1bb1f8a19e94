# shellcheck shell=bash
# Counting the cases of test programs. To be sourced.

# cases TARGET BAD FILE...: of GoogleTest's or bazel's XML: "passed failed
# skipped". Appends to the file BAD, a line each, what did not pass: "failed
# TARGET SUITE.CASE", for a skipped one with ": REASON" after it.
cases() {
  awk -v target="$1" -v bad="$2" '
    function attribute(name, found) {
      if (!match($0, " " name "=\"[^\"]*\"")) return ""
      found = substr($0, RSTART, RLENGTH)
      sub(/^[^"]*"/, "", found); sub(/"$/, "", found)
      return found
    }
    function close_case() {
      if (!open) return
      if (state == "failed") failed++
      else if (state == "skipped") skipped++
      else passed++
      if (state != "passed") printf "%-8s %s %s%s\n", state, target, name, reason >>bad
      open = 0
    }
    # Text of the test itself may look like anything.
    in_text { if (!sub(/.*\]\]>/, "")) next; in_text = 0 }
    { gsub(/<!\[CDATA\[.*\]\]>/, ""); in_text = sub(/<!\[CDATA\[.*/, "") }
    /<testcase / {
      close_case()
      open = 1
      reason = ""
      name = attribute("classname") "." attribute("name")
      sub(/^\./, "", name)
      state = attribute("result") ~ /^(skipped|suppressed)$/ ? "skipped" : "passed"
    }
    /<skipped / {
      # "file:line", a line break, and what the test says.
      reason = attribute("message")
      sub(/^[^&]*&#x0A;/, "", reason)
      gsub(/&#x0A;/, " ", reason)
      reason = ": " reason
    }
    /<(failure|error)[ >]/ { state = "failed"; reason = "" }
    /<\/testcase>|<testcase [^>]*\/>/ { close_case() }
    END { close_case(); print passed + 0, failed + 0, skipped + 0 }
  ' "${@:3}"
}
