#include "lib/lines/json_line.h"

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace caisson::lines {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::string Json(absl::string_view text) {
  std::string json;
  AppendJsonString(json, text);
  return json;
}

// "object.name" to value; "not an object" alone for what is none.
std::map<std::string, std::string> Strings(absl::string_view line) {
  std::map<std::string, std::string> strings;
  if (!ReadStrings(line, [&](absl::string_view object, absl::string_view name,
                             std::string& value) {
        strings[absl::StrCat(object, ".", name)] = value;
      })) {
    return {{"not an object", ""}};
  }
  return strings;
}

TEST(JsonLineTest, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(Json(""), R"("")");
  EXPECT_EQ(Json("plain <text> & more/"), R"("plain <text> & more/")");
  EXPECT_EQ(Json("a\nb\r\t\"\\"), R"("a\nb\r\t\"\\")");
  EXPECT_EQ(Json(absl::string_view("\0\x1b[1m\x1f", 6)),
            "\"\\u0000\\u001b[1m\\u001f\"");
  EXPECT_EQ(Json("\x7f"), "\"\x7f\"");
}

TEST(JsonLineTest, KeepsUtf8AndReplacesEachOtherByte) {
  // The first and last characters of each length.
  for (const char* valid :
       {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(Json(valid), absl::StrCat("\"", valid, "\""));
  }
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(Json("\x80"), absl::StrCat("\"", bad, "\""));
  EXPECT_EQ(Json("a\xff\xfe z"), absl::StrCat("\"a", bad, bad, " z\""));
  // Overlong, a surrogate, beyond U+10FFFF, cut at the end and in the middle.
  EXPECT_EQ(Json("\xc0\xaf"), absl::StrCat("\"", bad, bad, "\""));
  EXPECT_EQ(Json("\xed\xa0\x80"), absl::StrCat("\"", bad, bad, bad, "\""));
  EXPECT_EQ(Json("\xf4\x90\x80\x80"),
            absl::StrCat("\"", bad, bad, bad, bad, "\""));
  EXPECT_EQ(Json("\xe2\x82"), absl::StrCat("\"", bad, bad, "\""));
  EXPECT_EQ(Json("\xe2\x82z"), absl::StrCat("\"", bad, bad, "z\""));
  EXPECT_EQ(Json("\xe2\xc3\xa4"), absl::StrCat("\"", bad, "\xc3\xa4\""));
}

TEST(JsonLineTest, WhatIsWrittenIsRead) {
  std::string all;
  for (int byte = 0; byte < 128; ++byte) all += static_cast<char>(byte);
  all += "\xc3\xa4\xf0\x9f\x90\x8b";
  EXPECT_THAT(Strings(absl::StrCat("{", Json("key"), ":", Json(all), "}")),
              ElementsAre(Pair(".key", all)));
}

TEST(JsonLineTest, FindsACharacterThatIsCut) {
  EXPECT_EQ(IncompleteCharacter(""), 0u);
  EXPECT_EQ(IncompleteCharacter("abc"), 0u);
  EXPECT_EQ(IncompleteCharacter("abc\xc3"), 1u);
  EXPECT_EQ(IncompleteCharacter("abc\xc3\xa4"), 0u);
  EXPECT_EQ(IncompleteCharacter("\xe2\x82"), 2u);
  EXPECT_EQ(IncompleteCharacter("\xf0\x9f\x90"), 3u);
  EXPECT_EQ(IncompleteCharacter("\xf0\x9f\x90\x8b"), 0u);
  // Invalid whatever follows: nothing to wait for.
  EXPECT_EQ(IncompleteCharacter("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(IncompleteCharacter("\xff"), 0u);
  EXPECT_EQ(IncompleteCharacter("\xed\xa0"), 0u);
}

TEST(JsonLineTest, TimesSortAsTextAndAreReadInAnyZone) {
  const absl::Time time =
      absl::FromUnixSeconds(1795302000) + absl::Nanoseconds(120000000);
  EXPECT_EQ(FormatLineTime(time), "2026-11-21T23:00:00.120000000Z");
  EXPECT_EQ(ParseLineTime("2026-11-21T23:00:00.120000000Z"), time);
  EXPECT_EQ(ParseLineTime("2026-11-22T01:00:00.12+02:00"), time);
  EXPECT_EQ(ParseLineTime("2026-11-21T23:00:00"), std::nullopt);
  EXPECT_EQ(ParseLineTime("infinite-future"), std::nullopt);
  EXPECT_EQ(ParseLineTime("2026-13-21T23:00:00Z"), std::nullopt);
  EXPECT_EQ(ParseLineTime(""), std::nullopt);
}

TEST(JsonLineTest, ReadsStringsOfTwoLevelsAndIgnoresTheRest) {
  EXPECT_THAT(Strings(R"({"a":"1","n":1,"b":true,"z":null,"f":1.5,
                          "l":["x",["y"],{"k":"v"}],
                          "o":{"k":"v","deep":{"k":"w"},"l":["x"]},"c":"2"})"),
              ElementsAre(Pair(".a", "1"), Pair(".c", "2"), Pair("o.k", "v")));
  EXPECT_THAT(Strings("{}"), ElementsAre());
}

TEST(JsonLineTest, RefusesWhatIsNotOneObject) {
  const std::string deep(200000, '[');
  for (const std::string& line :
       {std::string(), std::string("null"), std::string("[]"),
        std::string("\"a\""), std::string("[{\"a\":\"b\"}]"),
        std::string("{\"a\":\"b\"}{"), std::string("{\"a\":\"b\"} x"),
        std::string("{\"a\":\"b"), std::string("{\"a\":\"b\xff\"}"),
        std::string("{\"a\":\"\\ud800\"}"), std::string("{'a':1}"),
        std::string("{\"a\":\"b\",}"), deep, absl::StrCat("{\"a\":", deep),
        std::string("{\"a\":1e999}")}) {
    EXPECT_THAT(Strings(line), ElementsAre(Pair("not an object", "")))
        << line.substr(0, 80);
  }
}

}  // namespace
}  // namespace caisson::lines
